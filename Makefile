# The few commands of rserve. .ci/setup brings what they need; Meson does the work.
.PHONY: all wheel run test sim compat-ray bench fmt san setup clean

NINJA = ninja -C
SUM = python3 .ci/count.py
MESON_TEST = meson test --no-rebuild --print-errorlogs -C

all: setup build/build.ninja
	@$(NINJA) build --quiet rserve sched/rserve_replica.h

setup:
	@.ci/setup

build/build.ninja:
	@meson setup -Dbuildtype=release -Dtests=disabled build >/dev/null || meson setup -Dbuildtype=release -Dtests=disabled build

wheel: all
	@$(NINJA) build --quiet wheel

run: all
	@build/rserve run testdata/apps/rag/app.yaml

test: all
	@.ci/setup test
	@test -e build-test/build.ninja || meson setup -Dtests=enabled build-test
	@$(NINJA) build-test --quiet
	@$(MESON_TEST) build-test; $(SUM) $$? build-test

# A cluster on a virtual clock, with faults: make sim SEEDS=1000
sim:
	@.ci/setup test
	@test -e build-test/build.ninja || meson setup -Dtests=enabled build-test
	@$(NINJA) build-test --quiet tests/sim tests/sim-scale
	@build-test/tests/sim --seeds $${SEEDS:-200} && build-test/tests/sim-scale

san:
	@.ci/setup test
	@test -e build-asan/build.ninja || meson setup -Dtests=enabled -Db_sanitize=address,undefined build-asan
	@test -e build-tsan/build.ninja || meson setup -Dtests=enabled -Db_sanitize=thread build-tsan
	@$(NINJA) build-asan --quiet && $(NINJA) build-tsan --quiet
	@rm -f build-[at]san/meson-logs/sanitizer-report.*
	@status=0; \
	 $(MESON_TEST) build-asan -t 3 --no-suite lint --no-suite python --no-suite release --no-suite listed --no-suite plain || status=$$?; \
	 $(MESON_TEST) build-tsan -t 3 --no-suite lint --no-suite python --no-suite release --no-suite fuzz-corpus --no-suite listed --no-suite plain || status=$$?; \
	 $(SUM) $$status build-asan build-tsan

compat-ray: all
	@.ci/setup compat
	@RSERVE=$(CURDIR)/build/rserve PATH=$$(dirname $$(.ci/setup python)):$$PATH tests/compat/compat.py --ray-bin $$(.ci/setup ray)

bench: all
	@.ci/setup bench
	@$$(.ci/setup bench-python) tests/bench/bench.py --rserve build/rserve

fmt:
	@.ci/setup test
	@git ls-files -z '*.c' '*.h' | xargs -0 clang-format -i

clean:
	rm -rf build build-*
