/* Token buckets on a virtual clock: what is admitted, what must wait, and that no key ever gets more. */
#include "net/router/rate.h"
#include "tests/unit/check_main.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"

#include <stdlib.h>
#include <string.h>

#define START RS_SEC

static struct rs_rate r;

/* Steps of one key: at `ms`, a request, and how many ms it is told to wait (0: admitted). */
struct step {
    int ms, wait;
};

static const struct {
    double per_s;
    unsigned burst;
    struct step steps[12]; /* ends with ms -1 */
} tables[] = {
    /* a burst, then one each 100 ms */
    {10, 3, {{0, 0}, {0, 0}, {0, 0}, {0, 100}, {99, 1}, {100, 0}, {100, 100}, {-1, 0}}},
    /* a refused request costs nothing */
    {1, 1, {{0, 0}, {1, 999}, {500, 500}, {999, 1}, {1000, 0}, {-1, 0}}},
    /* a pause fills the bucket, but not more than that */
    {10, 2, {{0, 0}, {0, 0}, {0, 100}, {60000, 0}, {60000, 0}, {60000, 100}, {-1, 0}}},
    /* it fills by and by */
    {10, 3, {{0, 0}, {0, 0}, {0, 0}, {200, 0}, {200, 0}, {200, 100}, {300, 0}, {-1, 0}}},
    /* a clock that goes back stands still */
    {10, 1, {{1000, 0}, {500, 100}, {0, 100}, {1100, 0}, {-1, 0}}},
    /* a request each two minutes */
    {1.0 / 120, 1, {{0, 0}, {60000, 60000}, {120000, 0}, {-1, 0}}},
    /* an extreme limit overflows nothing */
    {1e-12, 100000, {{0, 0}, {0, 0}, {1000000, 0}, {-1, 0}}},
};

START_TEST(one_key)
{
    rs_rate_init(&r, tables[_i].per_s, tables[_i].burst, 16);
    for (const struct step *s = tables[_i].steps; s->ms >= 0; s++) {
        int64_t wait = rs_rate_take(&r, 42, START + (int64_t)s->ms * RS_MS);

        ck_assert_msg(wait == (int64_t)s->wait * RS_MS, "step %d at %d ms: wait %lld ns",
                      (int)(s - tables[_i].steps), s->ms, (long long)wait);
    }
    rs_rate_fini(&r);
}
END_TEST

START_TEST(keys_are_apart)
{
    rs_rate_init(&r, 1, 1, 1024);
    for (uint64_t key = 0; key < 500; key++)
        ck_assert_int_eq(rs_rate_take(&r, key, START), 0);
    for (uint64_t key = 0; key < 500; key++)
        ck_assert_int_eq(rs_rate_take(&r, key, START + RS_MS), RS_SEC - RS_MS);
    ck_assert_uint_eq(r.n_slots, 1024);
    ck_assert_uint_eq(r.crowded, 0);
    rs_rate_fini(&r);
}
END_TEST

START_TEST(full_buckets_make_room)
{
    int64_t now = START;

    rs_rate_init(&r, 1000, 1, 64);
    for (uint64_t key = 1; key < 100000;
         key++) /* each is full again after 1 ms, as 10 others came */
        ck_assert_int_eq(rs_rate_take(&r, key, now += 100 * RS_US), 0);
    ck_assert_uint_eq(r.crowded, 0);
    ck_assert_uint_le(r.n_slots, 64);
    rs_rate_fini(&r);
}
END_TEST

START_TEST(without_room_keys_share)
{
    unsigned admitted = 0;

    rs_rate_init(&r, 1, 1, 16);
    for (uint64_t key = 1; key <= 1000; key++)
        admitted += rs_rate_take(&r, key, START) == 0;
    ck_assert_uint_eq(admitted, 12 + 1); /* three quarters of the table, and the shared bucket */
    ck_assert_uint_eq(r.crowded, 1000 - 12);
    admitted = 0;
    for (uint64_t key = 2001; key <= 2012; key++) /* a second later there is room again */
        admitted += rs_rate_take(&r, key, START + 2 * RS_SEC) == 0;
    ck_assert_uint_eq(admitted, 12);
    rs_rate_fini(&r);
}
END_TEST

/* --- properties ------------------------------------------------------------------------------- */

static uint64_t seed;

static uint64_t any(uint64_t n)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (seed >> 33) % n;
}

enum { KEYS = 40, EVENTS = 20000, HISTORY = 1500 };

struct history {
    int64_t at[HISTORY];
    size_t n;
};

/* No stretch of time has more than burst + rate * time. */
static void check_windows(const struct history *h, unsigned burst, int64_t interval)
{
    for (size_t i = 0; i < h->n; i++) {
        for (size_t k = i; k < h->n; k++) {
            int64_t room = (int64_t)burst + (h->at[k] - h->at[i]) / interval;

            if ((int64_t)(k - i + 1) <= room)
                continue; /* an assertion is a system call */
            ck_assert_msg(false, "%zu in %lld ns, but at most %lld", k - i + 1,
                          (long long)(h->at[k] - h->at[i]), (long long)room);
        }
    }
}

/* With room for all keys the decision is that of a bucket kept by the book. */
struct book {
    double tokens;
    int64_t at;
};

START_TEST(never_more_than_burst_and_rate)
{
    struct history *h = rs_alloc(KEYS * sizeof(*h));
    bool crowded = _i % 2;
    double per_s;
    unsigned burst, refused = 0;
    int64_t now = START;

    seed = (uint64_t)_i * 7919 + 11;
    per_s = (double)(1 + any(1000)) / (double)(1 + any(20));
    burst = 1 + (unsigned)any(30);
    rs_rate_init(&r, per_s, burst, crowded ? 16 : 128);
    for (int i = 0; i < EVENTS; i++) {
        /* three of them are busy; or all are, and there are too many */
        uint64_t key = crowded || !any(4) ? any(KEYS) : any(3);
        uint64_t pause = any(500) ? 1 : 400;
        int64_t wait;

        now += (int64_t)any(pause * (uint64_t)r.interval / (crowded ? 40 : 8));
        wait = rs_rate_take(&r, key, now);
        if (wait < 0)
            ck_abort_msg("waits %lld", (long long)wait);
        refused += wait > 0;
        if (wait == 0 && h[key].n < HISTORY)
            h[key].at[h[key].n++] = now;
        if (wait > 0 && !crowded && !any(10)) { /* it is admitted when it was told, not before */
            ck_assert_int_eq(rs_rate_take(&r, key, now + wait - 1), 1);
            ck_assert_int_eq(rs_rate_take(&r, key, now += wait), 0);
            if (h[key].n < HISTORY)
                h[key].at[h[key].n++] = now;
        }
    }
    ck_assert_uint_gt(refused, 0);
    ck_assert_int_eq(r.crowded > 0, crowded);
    for (size_t key = 0; key < KEYS; key++)
        check_windows(&h[key], burst, r.interval);
    rs_rate_fini(&r);
    free(h);
}
END_TEST

START_TEST(as_by_the_book)
{
    struct book book[KEYS];
    unsigned burst = 7;
    int64_t now = START;

    seed = (uint64_t)_i + 3;
    rs_rate_init(&r, 100, burst, 128); /* 10 ms: exact in a double */
    for (size_t i = 0; i < KEYS; i++)
        book[i] = (struct book){.tokens = burst, .at = START};
    for (int i = 0; i < EVENTS; i++) {
        struct book *b;
        uint64_t key = any(KEYS);
        bool admitted;

        now += (int64_t)any(10) * RS_MS / 16;
        b = &book[key];
        b->tokens += (double)(now - b->at) / (10.0 * RS_MS);
        if (b->tokens > burst)
            b->tokens = burst;
        b->at = now;
        admitted = b->tokens >= 1 - 1e-9;
        if ((rs_rate_take(&r, key, now) == 0) != admitted)
            ck_abort_msg("event %d: expected %d", i, admitted);
        if (admitted)
            b->tokens -= 1;
    }
    rs_rate_fini(&r);
}
END_TEST

RS_CHECK_MAIN("rate", tcase_add_loop_test(tc, one_key, 0, RS_COUNT(tables));
              tcase_add_test(tc, keys_are_apart); tcase_add_test(tc, full_buckets_make_room);
              tcase_add_test(tc, without_room_keys_share);
              tcase_add_loop_test(tc, never_more_than_burst_and_rate, 0, 30);
              tcase_add_loop_test(tc, as_by_the_book, 0, 5);)
