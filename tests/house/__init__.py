"""The rules of the house, as tests: who may import whom, how large things get, what documents must say."""
