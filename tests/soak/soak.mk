SLOW_TESTS += tests/soak/soak.sh
