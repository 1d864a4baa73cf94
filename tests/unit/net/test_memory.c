/* What lanes hold for requests, and when it is too much. */
#include "net/router/memory.h"

#include "tests/unit/check_main.h"

#include <string.h>

static struct rs_metrics *metrics;
static struct rs_memory all;
static struct rs_lane_memory lanes[2];

static void setup(void)
{
    metrics = rs_metrics_new();
    rs_memory_init(&all, (uint64_t)10 * RS_MEMORY_STEP, metrics);
    for (unsigned i = 0; i < 2; i++)
        rs_lane_memory_init(&lanes[i], &all, i, metrics);
}

static void teardown(void)
{
    rs_metrics_free(metrics);
}

static void shows(const char *line)
{
    struct rs_buf text = {0};

    rs_metrics_text(metrics, &text);
    ck_assert_msg(strstr(rs_buf_text(&text), line), "no %s in %s", line, rs_buf_text(&text));
    rs_buf_fini(&text);
}

START_TEST(the_sum_of_the_lanes_counts)
{
    rs_memory_add(&lanes[0], RS_HELD_WAITING, 6 * RS_MEMORY_STEP);
    ck_assert(!rs_memory_full(&lanes[0]));
    rs_memory_add(&lanes[1], RS_HELD_ANSWER, 4 * RS_MEMORY_STEP);
    ck_assert(rs_memory_full(&lanes[0]));
    ck_assert(rs_memory_full(&lanes[1]));
    rs_memory_add(&lanes[0], RS_HELD_WAITING, -RS_MEMORY_STEP);
    ck_assert(!rs_memory_full(&lanes[1]));
}
END_TEST

START_TEST(what_is_held_is_shown_at_once)
{
    rs_memory_add(&lanes[1], RS_HELD_WAITING, 1000);
    rs_memory_add(&lanes[1], RS_HELD_WAITING, -1000);
    rs_memory_add(&lanes[1], RS_HELD_REPLAY, 1000);
    shows("rserve_buffered_bytes{kind=\"replay\",lane=\"1\"} 1000.0");
    shows("rserve_buffered_bytes{kind=\"waiting\",lane=\"1\"} 0.0");
    shows("rserve_buffered_limit_bytes 2621440.0");
}
END_TEST

/* Whatever comes and goes: the process knows it to within a step for each lane, and to nothing less
 * than nothing at the end. */
START_TEST(known_to_within_a_step)
{
    int64_t held[2] = {0};
    uint64_t seed = (uint64_t)_i + 1;

    for (int i = 0; i < 100000; i++) {
        size_t lane;
        int64_t n, told, off;

        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        lane = seed >> 63;
        n = (int64_t)((seed >> 20) % (2 * RS_MEMORY_STEP));
        if (held[lane] > 20 * RS_MEMORY_STEP || ((seed >> 50) & 1 && n <= held[lane]))
            n = n <= held[lane] ? -n : -held[lane];
        held[lane] += n;
        rs_memory_add(&lanes[lane], RS_HELD_ANSWER, n);
        told = atomic_load(&all.told);
        off = told - held[0] - held[1];
        ck_assert_int_lt(off < 0 ? -off : off, 2 * RS_MEMORY_STEP);
    }
}
END_TEST

START_TEST(the_machine_is_the_default)
{
    rs_memory_init(&all, 0, metrics);
    ck_assert_int_gt(all.limit, 1 << 20);
}
END_TEST

RS_CHECK_MAIN("memory", tcase_add_checked_fixture(tc, setup, teardown);
              tcase_add_test(tc, the_sum_of_the_lanes_counts);
              tcase_add_test(tc, what_is_held_is_shown_at_once);
              tcase_add_loop_test(tc, known_to_within_a_step, 0, 4);
              tcase_add_test(tc, the_machine_is_the_default);)
