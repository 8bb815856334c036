"""The script of each application of a cluster; ``ray-serve-cai cai up`` puts it into the project.

Its text runs as cells of a Jupyter kernel: there is no ``__file__`` and no ``SystemExit``, an event loop runs already, and where the script
ends the application ends. So the launcher is a child, and is waited for.
"""

import subprocess

child = subprocess.Popen(["ray-serve-cai", "cai", "node"])
try:
    code = child.wait()
except BaseException:
    child.terminate()
    child.wait()
    raise
if code:
    raise RuntimeError(f"ray-serve-cai cai node ended with exit code {code}; why stands above")
