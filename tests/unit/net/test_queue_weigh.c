/* Slots that get less than their share: those of a replica that is slow, or does not answer. */
#include "net/router/queue.h"

#include "core/base/error.h"
#include "tests/unit/check_main.h"

enum { N = 4, LIMIT = 10 };

static struct rs_queue q;
static struct rs_slots slots[N];
static struct rs_waiter one, more[N * LIMIT];

static void begin(void)
{
    rs_queue_init(&q, -1);
    for (unsigned i = 0; i < N; i++) {
        slots[i] = (struct rs_slots){.limit = LIMIT, .admitted = true, .key = i + 1};
        rs_queue_add_slots(&q, &slots[i]);
    }
}

/* Where a request goes that comes now; NULL: it waits. */
static struct rs_slots *ask(struct rs_waiter *w)
{
    struct rs_waiter *displaced;
    struct rs_slots *s = NULL;

    ck_assert_int_eq(rs_queue_put(&q, w, 1000, &displaced), 0);
    if (rs_queue_next(&q, 1000, &s) != w)
        return NULL;
    return s;
}

/* `n` requests, one after the other; how many `s` got. */
static unsigned serve(unsigned n, const struct rs_slots *s, uint64_t session)
{
    unsigned got = 0;

    for (unsigned i = 0; i < n; i++) {
        struct rs_slots *at;

        one = (struct rs_waiter){.priority = RS_PRIORITY_DEFAULT, .wish = {.session = session}};
        at = ask(&one);
        ck_assert_ptr_nonnull(at);
        got += at == s;
        rs_queue_release(&q, at, 1000);
    }
    return got;
}

static const struct {
    unsigned percent, least, most; /* of 1000 requests among four */
} shares[] = {{100, 250, 250}, {50, 120, 130}, {10, 24, 26}, {1, 2, 3}, {0, 0, 0}};

START_TEST(a_share)
{
    begin();
    rs_queue_weigh(&q, &slots[2], shares[_i].percent, N);
    unsigned got = serve(1000, &slots[2], 0);

    ck_assert_msg(got >= shares[_i].least && got <= shares[_i].most, "%u", got);
    rs_queue_weigh(&q, &slots[2], 100, N); /* it is well again */
    got = serve(1000, &slots[2], 0);
    ck_assert_uint_ge(got, 250);
    ck_assert_uint_le(got, 251);
}
END_TEST

/* When all are at work it takes its share at a time, and no more. */
START_TEST(under_load)
{
    unsigned taken = 0;

    begin();
    rs_queue_weigh(&q, &slots[2], 20, N);
    for (unsigned i = 0; i < N * LIMIT; i++) {
        more[i] = (struct rs_waiter){.priority = RS_PRIORITY_DEFAULT};
        taken += ask(&more[i]) != NULL;
    }
    ck_assert_uint_eq(slots[2].in_flight, 2);
    ck_assert_uint_eq(taken, (N - 1) * LIMIT + 2);
    ck_assert_uint_eq(q.queued, LIMIT - 2);
}
END_TEST

/* It does not answer: rather wait than go there. */
START_TEST(none_at_all)
{
    begin();
    rs_queue_weigh(&q, &slots[0], 0, N);
    for (unsigned i = 1; i < N; i++)
        slots[i].admitted = false;
    one = (struct rs_waiter){.priority = RS_PRIORITY_DEFAULT};
    ck_assert_ptr_null(ask(&one));
    ck_assert(rs_queue_open(&q)); /* it may come back */
    rs_queue_weigh(&q, &slots[0], 100, N);
    struct rs_slots *s = NULL;

    ck_assert_ptr_eq(rs_queue_next(&q, 1000, &s), &one);
    ck_assert_ptr_eq(s, &slots[0]);
}
END_TEST

/* Its sessions go to others meanwhile, but for its share. */
START_TEST(sessions)
{
    uint64_t session = 1;

    begin();
    while (serve(1, &slots[2], session) == 0) /* one that belongs there */
        session++;
    ck_assert_uint_eq(serve(100, &slots[2], session), 100);
    rs_queue_weigh(&q, &slots[2], 10, N);
    ck_assert_uint_le(serve(400, &slots[2], session), 11);
    rs_queue_weigh(&q, &slots[2], 100, N);
    ck_assert_uint_eq(serve(100, &slots[2], session), 100);
}
END_TEST

RS_CHECK_MAIN("queue weigh", tcase_add_loop_test(tc, a_share, 0, RS_COUNT(shares));
              tcase_add_test(tc, under_load); tcase_add_test(tc, none_at_all);
              tcase_add_test(tc, sessions);)
