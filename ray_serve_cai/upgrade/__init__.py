"""``ray-serve-cai upgrade``: a running Compose cluster comes to another image, and back where that does not start.

`plan` and `probe`'s judgement are pure. `docker` speaks to Docker by its command line: Compose has no other interface, and so the
command takes Docker's own context, rights and settings, and needs no further package. `look` collects what a plan is made of, `steps` acts.
"""
