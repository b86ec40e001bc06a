SLOW_TESTS += tests/soak/soak.sh
SLOW_TESTS += tests/soak/programs.sh
SLOW_TESTS += tests/soak/check.sh
