/* Priorities, deadlines, displacement and shedding of the queue, case by case. */
#include "core/base/clock.h"
#include "core/base/error.h"
#include "net/router/queue.h"
#include "tests/unit/check_main.h"

static struct rs_queue q;
static int64_t now;
static struct rs_waiter w[10];
static struct rs_slots a, far;

static void begin(int max_queued, unsigned limit)
{
    rs_queue_init(&q, max_queued);
    q.ageing = 100;
    now = 1000;
    a = far = (struct rs_slots){.limit = limit, .admitted = true};
    far.remote = true;
    rs_queue_add_slots(&q, &a);
    for (size_t i = 0; i < RS_COUNT(w); i++)
        w[i] = (struct rs_waiter){.priority = RS_PRIORITY_DEFAULT};
}

static void put(unsigned i, uint8_t priority)
{
    struct rs_waiter *displaced;

    w[i].priority = priority;
    ck_assert_int_eq(rs_queue_put(&q, &w[i], now, &displaced), 0);
    ck_assert_ptr_null(displaced);
}

static struct rs_waiter *next(void)
{
    struct rs_slots *s;
    struct rs_waiter *x = rs_queue_next(&q, now, &s);

    if (x && s)
        rs_queue_release(&q, s, now);
    return x;
}

START_TEST(the_most_urgent_first)
{
    static const uint8_t came[] = {5, 0, 9, 5, 9, 1};
    static const unsigned went[] = {2, 4, 0, 3, 5, 1};

    begin(-1, 1);
    for (unsigned i = 0; i < RS_COUNT(came); i++)
        put(i, came[i]);
    for (unsigned i = 0; i < RS_COUNT(went); i++)
        ck_assert_ptr_eq(next(), &w[went[i]]);
    ck_assert_ptr_null(next());
    ck_assert_uint_eq(q.queued, 0);
}
END_TEST

static const struct {
    int64_t later; /* a request of class 7 comes so much after one of class 4 */
    bool overtakes;
} ages[] = {{0, true}, {299, true}, {300, false}, {301, false}};

START_TEST(who_waits_becomes_more_urgent)
{
    begin(-1, 1);
    put(0, 4);
    now += ages[_i].later;
    put(1, 7);
    now += 12345;
    ck_assert_ptr_eq(next(), &w[ages[_i].overtakes]);
    ck_assert_ptr_eq(next(), &w[!ages[_i].overtakes]);
}
END_TEST

START_TEST(local_and_any_in_one_order)
{
    begin(-1, 1);
    w[0].local_only = w[2].local_only = true;
    put(0, 3);
    put(1, 4);
    put(2, 5);
    ck_assert_ptr_eq(next(), &w[2]);
    ck_assert_ptr_eq(next(), &w[1]);
    ck_assert_ptr_eq(next(), &w[0]);
}
END_TEST

START_TEST(what_comes_back_has_its_place)
{
    struct rs_slots *s;

    begin(-1, 2);
    put(0, 5);
    now += 10;
    put(1, 5);
    ck_assert_ptr_eq(rs_queue_next(&q, now, &s), &w[0]);
    ck_assert_ptr_eq(rs_queue_next(&q, now, &s), &w[1]);
    now += 10;
    put(2, 5);
    put(3, 6);
    a.blocked = true;
    rs_queue_release(&q, &a, now);
    rs_queue_release(&q, &a, now);
    rs_queue_return(&q, &w[1], now); /* in whatever order they come back */
    rs_queue_return(&q, &w[0], now);
    ck_assert_int_eq(w[0].arrived, 1000);
    a.blocked = false;
    ck_assert_ptr_eq(next(), &w[3]);
    ck_assert_ptr_eq(next(), &w[0]);
    ck_assert_ptr_eq(next(), &w[1]);
    ck_assert_ptr_eq(next(), &w[2]);
    w[4].priority = 5; /* it was never here */
    put(5, 5);
    rs_queue_return(&q, &w[4], now);
    ck_assert_ptr_eq(next(), &w[5]);
    ck_assert_ptr_eq(next(), &w[4]);
}
END_TEST

START_TEST(too_late_is_not_started)
{
    struct rs_slots *s = &a;

    begin(-1, 1);
    w[0].deadline = now + 10;
    w[1].deadline = now + 20;
    put(0, 5);
    put(1, 5);
    put(2, 5);
    now += 10;
    ck_assert_ptr_eq(rs_queue_next(&q, now, &s), &w[0]);
    ck_assert_ptr_null(s);
    ck_assert_uint_eq(a.in_flight, 0);
    ck_assert_uint_eq(q.queued, 2);
    ck_assert_ptr_eq(rs_queue_next(&q, now, &s), &w[1]);
    ck_assert_ptr_eq(s, &a);
    ck_assert_uint_eq(q.dropped[RS_DROP_EXPIRED], 1);
    w[3].deadline = now + 5;
    put(3, 5);
    ck_assert(!rs_queue_cancel(&q, &w[3], now + 4)); /* by its client */
    w[3].deadline = now + 5;
    put(3, 5);
    ck_assert(rs_queue_cancel(&q, &w[3], now + 5)); /* by its time */
    ck_assert_uint_eq(q.dropped[RS_DROP_EXPIRED], 2);
    w[4].deadline = now + 5; /* somebody chooses for it */
    put(4, 5);
    rs_queue_hold(&q, &w[4]);
    rs_queue_release(&q, &a, now);
    ck_assert(!rs_queue_take(&q, &w[4], &a, now + 5));
    ck_assert_uint_eq(q.dropped[RS_DROP_EXPIRED], 3);
    ck_assert_uint_eq(a.in_flight, 0);
    ck_assert_uint_eq(q.queued, 1);
}
END_TEST

/* Requests take 40, give or take. */
static void begin_late(int max_queued, unsigned limit)
{
    begin(max_queued, limit);
    q.work = (struct rs_span){.mean = 20, .deviation = 10};
}

START_TEST(too_little_time_lets_others_go)
{
    begin_late(-1, 1);
    for (unsigned i = 0; i < 4; i++)
        w[i].deadline = now + 100;
    put(0, 5);
    put(1, 7);
    put(2, 5);
    now += 61;
    w[3].deadline = w[4].deadline = now + 60;
    put(3, 5);
    put(4, 4);
    ck_assert_ptr_eq(next(), &w[3]); /* the first that can be done */
    ck_assert_ptr_eq(next(), &w[4]);
    ck_assert_ptr_eq(next(), &w[1]); /* nobody else is there: the most urgent */
    ck_assert_ptr_eq(next(), &w[2]); /* and of the others the one that came last */
    ck_assert_ptr_eq(next(), &w[0]);
    ck_assert_ptr_null(next());
}
END_TEST

/* A limit that is short from the start is no reason to be passed by. */
START_TEST(who_has_half_of_his_time_is_not_late)
{
    begin_late(-1, 1);
    w[0].deadline = now + 20;
    put(0, 5);
    now += 10;
    put(1, 5);
    ck_assert_ptr_eq(next(), &w[0]);
    ck_assert_ptr_eq(next(), &w[1]);
    w[0].deadline = now + 20;
    put(0, 5);
    now += 11;
    put(1, 5);
    ck_assert_ptr_eq(next(), &w[1]);
    ck_assert_ptr_eq(next(), &w[0]);
}
END_TEST

START_TEST(who_is_late_makes_room)
{
    struct rs_waiter *displaced;

    begin_late(2, 1);
    w[0].deadline = now + 100;
    put(0, 5);
    now += 61;
    put(1, 5);
    ck_assert_ptr_eq(next(), &w[1]);
    a.limit = 0;
    put(2, 5);
    w[5].priority = 4;
    ck_assert_int_eq(rs_queue_put(&q, &w[5], now, &displaced), RS_QUEUE_FULL);
    ck_assert_int_eq(rs_queue_put(&q, &w[6], now, &displaced), 0);
    ck_assert_ptr_eq(displaced, &w[0]);
    ck_assert_uint_eq(q.queued, 2);
}
END_TEST

START_TEST(how_long_it_takes)
{
    begin(-1, 1);
    ck_assert_int_eq(rs_span_most(&q.work), 0);
    rs_queue_took(&q, 100 * RS_US, true);
    ck_assert_int_eq(rs_span_most(&q.work), 200 * RS_US);
    rs_queue_took(&q, 150 * RS_US, false); /* broken off: it says nothing new */
    ck_assert_int_eq(rs_span_most(&q.work), 200 * RS_US);
    for (int i = 0; i < 30; i++)
        rs_queue_took(&q, rs_span_most(&q.work) + 1, false); /* they take longer and longer */
    ck_assert_int_gt(rs_span_most(&q.work), RS_MS);
    for (int i = 0; i < 100; i++)
        rs_queue_took(&q, 100 * RS_US, true);
    ck_assert_int_lt(rs_span_most(&q.work), 130 * RS_US);
}
END_TEST

/* Three wait, of the classes 3, 3 and 5, and no more may. */
static const struct {
    uint8_t priority;
    bool taken;
    int displaced;
} newcomers[] = {{0, false, -1}, {3, false, -1}, {4, true, 1}, {5, true, 1}, {9, true, 1}};

START_TEST(the_less_urgent_makes_room)
{
    struct rs_waiter *displaced;
    int r;

    begin(3, 0);
    put(0, 3);
    put(1, 3);
    put(2, 5);
    w[3].priority = newcomers[_i].priority;
    r = rs_queue_put(&q, &w[3], now, &displaced);
    ck_assert_int_eq(r, newcomers[_i].taken ? 0 : RS_QUEUE_FULL);
    ck_assert_ptr_eq(displaced, newcomers[_i].displaced < 0 ? NULL : &w[newcomers[_i].displaced]);
    ck_assert_uint_eq(q.queued, 3);
    ck_assert_uint_eq(q.dropped[RS_DROP_FULL], 1);
}
END_TEST

/* --- shedding ---------------------------------------------------------------------------------- */

static void begin_shed(unsigned limit)
{
    begin(-1, limit);
    q.shed = (struct rs_shed){.target = 100, .interval = 1000};
    a.in_flight = limit;
}

/* More than `interval` after the queue was looked at for the first time, the target being exceeded. */
static void overload(void)
{
    now += 101;
    ck_assert_ptr_null(rs_queue_shed(&q, now));
    now += 1000;
}

START_TEST(the_lowest_class_goes_first)
{
    begin_shed(1);
    put(0, 5);
    put(1, 2);
    put(2, 9);
    put(3, 2);
    overload();
    ck_assert_int_eq(rs_queue_deadline(&q, now), 0); /* now, and not at some time */
    ck_assert_ptr_eq(rs_queue_shed(&q, now), &w[1]);
    ck_assert(q.shed.on);
    ck_assert_ptr_eq(rs_queue_shed(&q, now), &w[3]);
    ck_assert_ptr_eq(rs_queue_shed(&q, now), &w[0]);
    ck_assert_ptr_null(rs_queue_shed(&q, now)); /* one for the one slot */
    ck_assert_uint_eq(q.queued, 1);
    ck_assert_uint_eq(q.dropped[RS_DROP_SHED], 3);
}
END_TEST

START_TEST(only_as_many_as_it_takes)
{
    begin_shed(1);
    put(0, 5);
    overload();
    now -= 50;
    put(1, 5);
    put(2, 5);
    now += 50;
    ck_assert_ptr_eq(rs_queue_shed(&q, now), &w[0]);
    ck_assert_ptr_null(rs_queue_shed(&q, now)); /* the others have waited for 50 */
    ck_assert(!q.shed.on);                      /* half of the target */
    ck_assert_int_eq(rs_queue_deadline(&q, now), now + 51);
    ck_assert_uint_eq(q.queued, 2);
}
END_TEST

START_TEST(whom_somebody_chooses_for_too)
{
    begin_shed(1);
    put(0, 5);
    rs_queue_hold(&q, &w[0]);
    put(1, 5);
    overload();
    ck_assert_ptr_eq(rs_queue_shed(&q, now), &w[0]);
    ck_assert_ptr_null(rs_queue_shed(&q, now));
}
END_TEST

START_TEST(without_replicas_there_is_no_overload)
{
    begin_shed(1);
    a.admitted = false;
    for (unsigned i = 0; i < 5; i++)
        put(i, 5);
    overload();
    ck_assert_ptr_null(rs_queue_shed(&q, now));
    a.admitted = true; /* it has an interval to catch up */
    ck_assert_ptr_null(rs_queue_shed(&q, now));
    now += 999;
    ck_assert_ptr_null(rs_queue_shed(&q, now));
    now += 1;
    ck_assert_ptr_nonnull(rs_queue_shed(&q, now));
}
END_TEST

START_TEST(it_says_when_to_look_again)
{
    begin_shed(1);
    put(0, 5);
    put(1, 5);
    ck_assert_int_eq(rs_queue_deadline(&q, now), now + 101);
    now += 101;
    ck_assert_ptr_null(rs_queue_shed(&q, now));
    ck_assert_int_eq(rs_queue_deadline(&q, now), now + 1000);
    now -= 101;
    overload();
    now -= 40;
    put(2, 5);
    now += 70;
    ck_assert_ptr_eq(rs_queue_shed(&q, now), &w[0]);
    ck_assert_ptr_eq(rs_queue_shed(&q, now), &w[1]);
    ck_assert_ptr_null(rs_queue_shed(&q, now));
    ck_assert(q.shed.on); /* w[2] has waited for 70 */
    ck_assert_int_eq(rs_queue_deadline(&q, now), now + 31);
}
END_TEST

START_TEST(off_unless_asked_for)
{
    begin_shed(1);
    q.shed.target = 0;
    for (unsigned i = 0; i < 5; i++)
        put(i, 5);
    now += RS_SEC * 1000000;
    ck_assert_ptr_null(rs_queue_shed(&q, now));
    ck_assert_int_eq(rs_queue_deadline(&q, now), 0);
    rs_queue_configure(&q, &(struct rs_queue_conf){.max_queued = 3, .shed_target = 5});
    ck_assert_int_eq(q.ageing, 5 * RS_SEC);
    ck_assert_int_eq(q.shed.target, 5);
}
END_TEST

RS_CHECK_MAIN("queue_order", tcase_add_test(tc, the_most_urgent_first);
              tcase_add_loop_test(tc, who_waits_becomes_more_urgent, 0, RS_COUNT(ages));
              tcase_add_test(tc, local_and_any_in_one_order);
              tcase_add_test(tc, what_comes_back_has_its_place);
              tcase_add_test(tc, too_late_is_not_started);
              tcase_add_test(tc, too_little_time_lets_others_go);
              tcase_add_test(tc, who_has_half_of_his_time_is_not_late);
              tcase_add_test(tc, who_is_late_makes_room); tcase_add_test(tc, how_long_it_takes);
              tcase_add_loop_test(tc, the_less_urgent_makes_room, 0, RS_COUNT(newcomers));
              tcase_add_test(tc, the_lowest_class_goes_first);
              tcase_add_test(tc, only_as_many_as_it_takes);
              tcase_add_test(tc, whom_somebody_chooses_for_too);
              tcase_add_test(tc, without_replicas_there_is_no_overload);
              tcase_add_test(tc, it_says_when_to_look_again);
              tcase_add_test(tc, off_unless_asked_for);)
