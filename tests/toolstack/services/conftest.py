"""A host per test, on simulated hands."""

from tests.toolstack.vm.conftest import host as host
