"""The deployment artifact: files, manifest, hashes, and a bundle as a policy."""
