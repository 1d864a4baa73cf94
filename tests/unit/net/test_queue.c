#include "net/router/queue.h"

#include "core/base/error.h"
#include "tests/unit/check_main.h"

static struct rs_queue q;
static struct rs_waiter w[8];
static struct rs_slots a, b, far;

static void begin(int max_queued)
{
    rs_queue_init(&q, max_queued);
    a = b = far = (struct rs_slots){.limit = 1, .admitted = true};
    far.remote = true;
    for (size_t i = 0; i < RS_COUNT(w); i++)
        w[i] = (struct rs_waiter){0};
}

/* The next pair must be these; NULL: none. */
static void expect(struct rs_waiter *want, struct rs_slots *where)
{
    struct rs_slots *s = NULL;
    struct rs_waiter *got = rs_queue_next(&q, &s);

    ck_assert_ptr_eq(got, want);
    if (want)
        ck_assert_ptr_eq(s, where);
}

START_TEST(first_come_first_served)
{
    begin(-1);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(rs_queue_put(&q, &w[i]), 0);
    expect(NULL, NULL);
    rs_queue_add_slots(&q, &a);
    expect(&w[0], &a);
    expect(NULL, NULL);
    rs_queue_release(&q, &a);
    expect(&w[1], &a);
    ck_assert_uint_eq(q.queued, 1);
    rs_queue_remove(&q, &w[2]); /* it no longer wants to */
    rs_queue_release(&q, &a);
    expect(NULL, NULL);
    ck_assert_uint_eq(q.queued, 0);
}
END_TEST

START_TEST(fewest_in_flight_then_in_turn)
{
    begin(-1);
    a.limit = b.limit = 3;
    rs_queue_add_slots(&q, &a);
    rs_queue_add_slots(&q, &b);
    for (int i = 0; i < 8; i++)
        ck_assert_int_eq(rs_queue_put(&q, &w[i]), 0);
    expect(&w[0], &b); /* the newer one was used longest ago: never */
    expect(&w[1], &a);
    expect(&w[2], &b);
    expect(&w[3], &a);
    rs_queue_release(&q, &a);
    rs_queue_release(&q, &a);
    expect(&w[4], &a);
    expect(&w[5], &a);
    expect(&w[6], &b);
    expect(&w[7], &a);
    ck_assert_uint_eq(a.in_flight, 3);
    ck_assert_uint_eq(b.in_flight, 3);
}
END_TEST

START_TEST(here_before_elsewhere)
{
    begin(-1);
    a.limit = 2;
    far.limit = 2;
    rs_queue_add_slots(&q, &a);
    rs_queue_add_slots(&q, &far);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(rs_queue_put(&q, &w[i]), 0);
    expect(&w[0], &a);
    expect(&w[1], &a);
    expect(&w[2], &far);
    expect(&w[3], &far);
}
END_TEST

START_TEST(who_must_stay_lets_others_go)
{
    begin(-1);
    rs_queue_add_slots(&q, &far);
    far.limit = 2;
    w[0].local_only = w[2].local_only = true;
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(rs_queue_put(&q, &w[i]), 0);
    expect(&w[1], &far);
    rs_queue_add_slots(&q, &a);
    expect(&w[0], &a);
    a.limit = 2;
    expect(&w[2], &a); /* in their order again */
    expect(&w[3], &far);
}
END_TEST

START_TEST(only_admitted_and_not_blocked)
{
    begin(-1);
    a.admitted = false;
    b.blocked = true;
    rs_queue_add_slots(&q, &a);
    rs_queue_add_slots(&q, &b);
    ck_assert(rs_queue_open(&q));
    ck_assert_int_eq(rs_queue_put(&q, &w[0]), 0);
    expect(NULL, NULL);
    b.admitted = false;
    ck_assert(!rs_queue_open(&q));
    a.admitted = true;
    expect(&w[0], &a);
    rs_queue_remove_slots(&q, &a);
    ck_assert(!rs_queue_open(&q));
}
END_TEST

static const struct {
    int max_queued;
    unsigned limit, fit; /* slots; how many of 8 are taken on */
} limits[] = {
    {-1, 0, 8}, {-1, 3, 8}, {0, 0, 0}, {0, 3, 3}, {2, 0, 2}, {2, 3, 5}, {2, 8, 8}, {20, 0, 8},
};

START_TEST(the_limit_is_exact)
{
    unsigned taken = 0;

    begin(limits[_i].max_queued);
    a.limit = limits[_i].limit;
    rs_queue_add_slots(&q, &a);
    for (int i = 0; i < 8; i++) {
        struct rs_slots *s;
        int r = rs_queue_put(&q, &w[i]);

        ck_assert_int_eq(r, taken < limits[_i].fit ? 0 : RS_QUEUE_FULL);
        taken += r == 0;
        (void)rs_queue_next(&q, &s);
    }
    ck_assert_uint_eq(taken, limits[_i].fit);
}
END_TEST

START_TEST(what_comes_back_goes_first)
{
    struct rs_slots *s;

    begin(1);
    a.limit = 2;
    rs_queue_add_slots(&q, &a);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(rs_queue_put(&q, &w[i]), 0);
        (void)rs_queue_next(&q, &s);
    }
    ck_assert_uint_eq(q.queued, 1);
    a.blocked = true;
    rs_queue_release(&q, &a);
    rs_queue_return(&q, &w[1]); /* beyond the limit, which is for newcomers */
    rs_queue_release(&q, &a);
    rs_queue_return(&q, &w[0]);
    ck_assert_uint_eq(q.queued, 3);
    ck_assert_int_eq(rs_queue_put(&q, &w[3]), RS_QUEUE_FULL);
    ck_assert_ptr_eq(rs_queue_pop(&q), &w[0]);
    ck_assert_ptr_eq(rs_queue_pop(&q), &w[1]);
    ck_assert_ptr_eq(rs_queue_pop(&q), &w[2]);
    ck_assert_ptr_null(rs_queue_pop(&q));
}
END_TEST

/* --- against a plain model --------------------------------------------------------------------- */

enum { WAITERS = 64, BACKENDS = 6, STEPS = 200000 };

static uint64_t seed;

static unsigned random_below(unsigned n)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (unsigned)(seed >> 33) % n;
}

static struct rs_waiter many[WAITERS];
static struct rs_slots *with[WAITERS]; /* where it is; NULL: waits or is idle */
static bool waits[WAITERS];
static struct rs_slots slots[BACKENDS];

static bool may_take(const struct rs_slots *s, const struct rs_waiter *x)
{
    return s->admitted && !s->blocked && s->in_flight < s->limit && !(s->remote && x->local_only);
}

/* After all pairs were taken: nobody waits beside a slot that suits him. */
static void check_nobody_waits_in_vain(void)
{
    unsigned queued = 0;

    for (int i = 0; i < WAITERS; i++) {
        queued += waits[i];
        for (int j = 0; waits[i] && j < BACKENDS; j++)
            ck_assert(!may_take(&slots[j], &many[i]));
    }
    ck_assert_uint_eq(q.queued, queued);
}

/* The one that was chosen is the oldest for which there was a slot, the slot the best for it. */
static void check_choice(const struct rs_waiter *x, const struct rs_slots *s)
{
    ck_assert_uint_le(s->in_flight, s->limit);
    ck_assert(s->admitted && !s->blocked && !(s->remote && x->local_only));
    for (int i = 0; i < WAITERS; i++) {
        for (int j = 0; waits[i] && j < BACKENDS; j++) {
            if (may_take(&slots[j], &many[i]))
                ck_assert(many[i].seq > x->seq || slots[j].remote);
        }
    }
    for (int j = 0; j < BACKENDS; j++) {
        if (&slots[j] == s || !may_take(&slots[j], x))
            continue;
        ck_assert(!s->remote || slots[j].remote);
        if (s->remote == slots[j].remote)
            ck_assert_uint_ge(slots[j].in_flight, s->in_flight - 1);
    }
}

static void step(void)
{
    unsigned i = random_below(WAITERS), j = random_below(BACKENDS);
    struct rs_slots *s;
    struct rs_waiter *x;

    switch (random_below(8)) {
    case 0:
    case 1:
    case 2:
        if (waits[i])
            rs_queue_remove(&q, &many[i]);
        if (!waits[i] && !with[i]) {
            many[i].local_only = random_below(3) == 0;
            waits[i] = rs_queue_put(&q, &many[i]) == 0;
            if (!waits[i])
                ck_assert_uint_ge(q.queued, (unsigned)q.max_queued);
        } else {
            waits[i] = false;
        }
        break;
    case 3:
    case 4:
        if (with[i])
            rs_queue_release(&q, with[i]);
        with[i] = NULL;
        break;
    case 5:
        if (with[i]) {
            rs_queue_release(&q, with[i]);
            rs_queue_return(&q, &many[i]);
            waits[i] = true;
        }
        with[i] = NULL;
        break;
    case 6:
        slots[j].admitted = random_below(4) != 0;
        slots[j].blocked = random_below(4) == 0;
        break;
    default:
        slots[j].limit = random_below(6);
        break;
    }
    while ((x = rs_queue_next(&q, &s))) {
        waits[x - many] = false;
        with[x - many] = s;
        check_choice(x, s);
    }
    check_nobody_waits_in_vain();
}

START_TEST(keeps_its_rules)
{
    seed = (uint64_t)_i + 1;
    rs_queue_init(&q, 20);
    for (int j = 0; j < BACKENDS; j++) {
        slots[j] = (struct rs_slots){.limit = 3, .admitted = true, .remote = j >= 4};
        rs_queue_add_slots(&q, &slots[j]);
    }
    for (int i = 0; i < STEPS / 20; i++)
        step();
}
END_TEST

RS_CHECK_MAIN("queue", tcase_add_test(tc, first_come_first_served);
              tcase_add_test(tc, fewest_in_flight_then_in_turn);
              tcase_add_test(tc, here_before_elsewhere);
              tcase_add_test(tc, who_must_stay_lets_others_go);
              tcase_add_test(tc, only_admitted_and_not_blocked);
              tcase_add_loop_test(tc, the_limit_is_exact, 0, RS_COUNT(limits));
              tcase_add_test(tc, what_comes_back_goes_first);
              tcase_add_loop_test(tc, keeps_its_rules, 0, 8);)
