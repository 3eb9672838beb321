"""The guest agent: what runs inside a virtual machine and speaks with its host through xenstore.

It needs Python 3.6 or newer and nothing else (docs/decisions/0018).
"""

VERSION = "1.0.0"
BUILD = "1"
