#include "core/loop/loop.h"

#include "core/base/clock.h"
#include "tests/unit/check_main.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

static char trace[256];

struct note {
    struct rs_timer timer;
    const char *name;
};

static int on_timer(struct rs_timer *t)
{
    strcat(trace, rs_container_of(t, struct note, timer)->name);
    return 0;
}

static struct rs_loop *new_loop(void)
{
    struct rs_loop *l = NULL;
    struct rs_error err = {0};

    ck_assert_int_eq(rs_loop_new(&l, &err), 0);
    trace[0] = '\0';
    return l;
}

START_TEST(timers_fire_in_order)
{
    struct rs_loop *l = new_loop();
    int64_t now = rs_clock_now();
    struct note notes[] = {
        {.name = "c"}, {.name = "a"}, {.name = "b"}, {.name = "x"}, {.name = "d"}};
    const int64_t at[] = {3, 1, 1, 2, 3}; /* equal deadlines: in the order of their starts */

    for (size_t i = 0; i < RS_COUNT(notes); i++) {
        notes[i].timer.fn = on_timer;
        rs_timer_start(&notes[i].timer, l, now - 1000 + at[i]);
    }
    rs_timer_stop(&notes[3].timer);
    rs_timer_stop(&notes[3].timer);
    ck_assert_int_eq(rs_loop_turn(l, 0), 0);
    ck_assert_str_eq(trace, "abcd");
    rs_loop_free(l);
}
END_TEST

struct self {
    struct rs_timer timer;
    struct rs_loop *loop;
};

static int restart(struct rs_timer *t)
{
    strcat(trace, "r");
    rs_timer_start(t, rs_container_of(t, struct self, timer)->loop, 0);
    return 0;
}

/* A timer that restarts itself in the past does not starve the turn. */
START_TEST(restarted_timer_waits_for_next_turn)
{
    struct self self = {.timer = {.fn = restart}};

    self.loop = new_loop();
    rs_timer_start(&self.timer, self.loop, 0);
    ck_assert_int_eq(rs_loop_turn(self.loop, 0), 0);
    ck_assert_str_eq(trace, "r");
    ck_assert_int_eq(rs_loop_turn(self.loop, 0), 0);
    ck_assert_str_eq(trace, "rr");
    rs_timer_stop(&self.timer);
    rs_loop_free(self.loop);
}
END_TEST

struct pair {
    struct rs_io io;
    struct rs_io *other;
};

static int stop_other(struct rs_io *io, uint32_t events)
{
    struct pair *p = rs_container_of(io, struct pair, io);

    strcat(trace, "1");
    rs_io_stop(io);
    if (p->other)
        rs_io_stop(p->other);
    return 0;
}

/* Two descriptors are ready in one batch; the callback of either stops both: only one runs. */
START_TEST(events_of_a_stopped_io_are_dropped)
{
    struct rs_loop *l = new_loop();
    int fds[2][2];
    struct pair a = {0}, b = {0};
    struct rs_error err;

    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(pipe(fds[i]), 0);
        ck_assert_int_eq(write(fds[i][1], "x", 1), 1);
    }
    a = (struct pair){.io = {.fd = fds[0][0], .fn = stop_other}, .other = &b.io};
    b = (struct pair){.io = {.fd = fds[1][0], .fn = stop_other}, .other = &a.io};
    ck_assert_int_eq(rs_io_start(&a.io, l, EPOLLIN, &err), 0);
    ck_assert_int_eq(rs_io_start(&b.io, l, EPOLLIN, &err), 0);
    ck_assert_int_eq(rs_loop_turn(l, 0), 0);
    ck_assert_str_eq(trace, "1");
    rs_loop_free(l);
    for (int i = 0; i < 4; i++)
        close(fds[i / 2][i % 2]);
}
END_TEST

struct box {
    struct rs_loop *loop;
    int64_t sum;
    int last, posted;
};

struct letter {
    struct box *box;
    int number;
};

static void on_post(void *arg)
{
    struct letter *letter = arg;

    ck_assert_int_eq(letter->number, letter->box->last + 1);
    letter->box->last = letter->number;
    letter->box->sum += letter->number;
    if (letter->number == letter->box->posted)
        rs_loop_stop(letter->box->loop);
}

enum { LETTERS = 10000 };
static struct letter letters[LETTERS];

static void *poster(void *arg)
{
    struct box *box = arg;

    for (int i = 0; i < LETTERS; i++) {
        letters[i] = (struct letter){box, i + 1};
        rs_loop_post(box->loop, on_post, &letters[i]);
    }
    return NULL;
}

START_TEST(posts_arrive_in_order_from_another_thread)
{
    struct box box = {.loop = new_loop(), .posted = LETTERS};
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, poster, &box), 0);
    ck_assert_int_eq(rs_loop_run(box.loop), 0);
    pthread_join(thread, NULL);
    ck_assert_int_eq(box.sum, (int64_t)LETTERS * (LETTERS + 1) / 2);
    rs_loop_free(box.loop);
}
END_TEST

static struct rs_loop *hook_loop;

static int64_t third_hook(struct rs_after *a)
{
    strcat(trace, "t");
    rs_after_remove(a);
    return -1;
}

static struct rs_after third = {.fn = third_hook};

static int64_t second_hook(struct rs_after *a)
{
    strcat(trace, "s");
    rs_after_remove(a);
    rs_after_add(hook_loop, &third);
    return -1;
}

static struct rs_after second = {.fn = second_hook};

static int64_t first_hook(struct rs_after *a)
{
    strcat(trace, "f");
    rs_after_remove(a);
    rs_after_add(hook_loop, &second);
    return -1;
}

/* A hook that is added by a hook runs in the same turn, one that this adds before the loop sleeps. */
START_TEST(hooks_may_add_hooks)
{
    struct rs_after first = {.fn = first_hook};

    hook_loop = new_loop();
    rs_after_add(hook_loop, &first);
    ck_assert_int_eq(rs_loop_turn(hook_loop, 60 * RS_SEC), 0); /* must not sleep */
    ck_assert_str_eq(trace, "fs");
    ck_assert_int_eq(rs_loop_turn(hook_loop, 0), 0);
    ck_assert_str_eq(trace, "fst");
    rs_loop_free(hook_loop);
}
END_TEST

RS_CHECK_MAIN("loop", tcase_add_test(tc, timers_fire_in_order);
              tcase_add_test(tc, restarted_timer_waits_for_next_turn);
              tcase_add_test(tc, events_of_a_stopped_io_are_dropped);
              tcase_add_test(tc, posts_arrive_in_order_from_another_thread);
              tcase_add_test(tc, hooks_may_add_hooks);)
