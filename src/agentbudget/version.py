"""The version, for traces and packaging."""

VERSION = "0.1.0"
