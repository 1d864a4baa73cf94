/* Which version a request goes to: draws, shares, and what the queue makes of them. */
#include "net/router/queue.h"

#include "core/base/error.h"
#include "tests/unit/check_main.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { OLD = 1, NEW = 2, DRAWS = 20000 };

static uint32_t draw_of(const struct rs_split *s, int i)
{
    char id[40];
    int n = snprintf(id, sizeof(id), "request-%d", i);

    return rs_split_draw(s, id, (size_t)n);
}

static bool goes_to_new(const struct rs_split *s, uint32_t draw)
{
    return draw >= s->share;
}

static const double shares[] = {0, 0.01, 0.1, 0.5, 0.99, 1};

/* As many as it should be, give or take five deviations; nobody and everybody exactly. */
START_TEST(a_share_is_a_share)
{
    struct rs_split s = rs_split_make(NEW, shares[_i], 1);
    double p = shares[_i], n = 0;

    for (int i = 0; i < DRAWS; i++)
        n += goes_to_new(&s, draw_of(&s, i));
    ck_assert_double_le(fabs(n - p * DRAWS), 5 * sqrt(p * (1 - p) * DRAWS));
}
END_TEST

START_TEST(more_adds_and_moves_nobody_back)
{
    for (int i = 0; i < 2000; i++) {
        bool before = false;

        for (size_t k = 0; k < RS_COUNT(shares); k++) {
            struct rs_split s = rs_split_make(NEW, shares[k], 1);
            bool is = goes_to_new(&s, draw_of(&s, i));

            ck_assert(is || !before);
            before = is;
        }
        ck_assert(before);
    }
}
END_TEST

/* Another salt draws other users. */
START_TEST(salt)
{
    struct rs_split a = rs_split_make(NEW, 0.5, 1), b = rs_split_make(NEW, 0.5, 2);
    int same = 0;

    for (int i = 0; i < DRAWS; i++)
        same += goes_to_new(&a, draw_of(&a, i)) == goes_to_new(&b, draw_of(&b, i));
    ck_assert_int_le(abs(same - DRAWS / 2), 500);
}
END_TEST

/* --- in the queue ------------------------------------------------------------------------------ */

static struct rs_queue q;
static struct rs_waiter w[6];
static struct rs_slots a, b;

static void begin(double share)
{
    struct rs_split s = rs_split_make(NEW, share, 0);

    rs_queue_init(&q, -1);
    a = (struct rs_slots){.limit = 1, .admitted = true, .version = OLD};
    b = (struct rs_slots){.limit = 1, .admitted = true, .version = NEW};
    rs_queue_add_slots(&q, &a);
    rs_queue_split(&q, &s);
    rs_queue_add_slots(&q, &b); /* before and after: both are told apart */
    memset(w, 0, sizeof(w));
}

static void put(int i, bool fresh)
{
    struct rs_waiter *displaced;

    w[i].draw = fresh ? UINT32_MAX : 0;
    ck_assert_int_eq(rs_queue_put(&q, &w[i], 1, &displaced), 0);
}

static void expect(struct rs_waiter *want, struct rs_slots *where)
{
    struct rs_slots *s = NULL;

    ck_assert_ptr_eq(rs_queue_next(&q, 2, &s), want);
    if (want)
        ck_assert_ptr_eq(s, where);
}

/* The head of the line waits for one version: those behind it have the other's slot meanwhile. */
START_TEST(one_version_does_not_hold_up_the_other)
{
    begin(0.5);
    put(0, true);
    put(1, true);
    put(2, false);
    expect(&w[0], &b);
    expect(&w[2], &a);
    expect(NULL, NULL);
    rs_queue_release(&q, &a, 2);
    expect(NULL, NULL); /* that one is not for it */
    rs_queue_release(&q, &b, 2);
    expect(&w[1], &b);
}
END_TEST

START_TEST(nobody_waits_for_a_version_that_is_not_there)
{
    begin(0.5);
    a.limit = 4;
    put(0, true);
    put(1, true);
    put(2, true);
    put(3, false);
    expect(&w[0], &b);
    expect(&w[3], &a);
    expect(NULL, NULL);
    b.admitted = false; /* it died */
    expect(&w[1], &a);
    expect(&w[2], &a);
    put(4, false);
    expect(&w[4], &a);
    a.admitted = false; /* and the other way round */
    b.admitted = true;
    b.limit = 2;
    put(5, false);
    expect(&w[5], &b);
}
END_TEST

START_TEST(what_came_from_another_node_stays)
{
    begin(0.5);
    b.remote = true;
    w[0].local_only = true;
    put(0, true);
    put(1, true);
    expect(&w[0], &a);
    expect(&w[1], &b);
}
END_TEST

/* Back to nobody: at once, in the order in which they came, whoever waits for the new one. */
START_TEST(rolled_back)
{
    struct rs_split none = rs_split_make(NEW, 0, 0), over = {0};

    begin(0.5);
    a.limit = 6;
    b.blocked = true;
    a.admitted = false;
    for (int i = 0; i < 4; i++)
        put(i, i % 2);
    b.blocked = false;
    a.admitted = true;
    rs_queue_split(&q, &none);
    for (int i = 0; i < 4; i++)
        expect(&w[i], &a);
    rs_queue_split(&q, &over);
    put(4, true);
    put(5, true);
    expect(&w[4], &b); /* any slot is good enough again */
    expect(&w[5], &a);
}
END_TEST

START_TEST(one_limit_for_both)
{
    struct rs_waiter *displaced;

    begin(0.5);
    q.max_queued = 1;
    put(0, true);
    expect(&w[0], &b);
    put(1, true);
    w[2].draw = UINT32_MAX;
    ck_assert_int_eq(rs_queue_put(&q, &w[2], 1, &displaced), RS_QUEUE_FULL);
    put(3, false); /* there is a slot for it */
    expect(&w[3], &a);
}
END_TEST

RS_CHECK_MAIN("split", tcase_add_loop_test(tc, a_share_is_a_share, 0, RS_COUNT(shares));
              tcase_add_test(tc, more_adds_and_moves_nobody_back); tcase_add_test(tc, salt);
              tcase_add_test(tc, one_version_does_not_hold_up_the_other);
              tcase_add_test(tc, nobody_waits_for_a_version_that_is_not_there);
              tcase_add_test(tc, what_came_from_another_node_stays);
              tcase_add_test(tc, rolled_back); tcase_add_test(tc, one_limit_for_both);)
