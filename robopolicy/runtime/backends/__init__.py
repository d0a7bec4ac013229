"""One file = one inference engine behind ``robopolicy.runtime.backend.Backend``."""
