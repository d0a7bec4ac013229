"""One file = one inference engine behind ``robopolicy.runtime.backends.protocol.Backend``."""
