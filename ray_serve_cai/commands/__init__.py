"""The commands of ``ray-serve-cai``: each imports only what it needs, when it runs."""
