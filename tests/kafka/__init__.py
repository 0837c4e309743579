"""Everything that needs a broker: a real one, shared by the tests of this folder."""
