"""What the shell, make and CI call."""

import sys

# nbformat imports jsonschema, and that, where it finds it, a grammar of addresses, which takes a second to build. No
# notebook's schema asks for it; with None in its place Python says that it is not there.
sys.modules.setdefault("rfc3987_syntax", None)
