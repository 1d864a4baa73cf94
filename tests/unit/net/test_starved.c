#include "net/wire/starved.h"

#include "core/base/clock.h"
#include "tests/unit/check_main.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int calls;

static int on_io(struct rs_io *io, uint32_t events)
{
    (void)io;
    (void)events;
    calls++;
    return 0;
}

static const struct {
    int error;
    bool starved;
} errors[] = {
    {EMFILE, true},  {ENFILE, true},        {ENOMEM, true}, {ENOBUFS, true},
    {EAGAIN, false}, {ECONNABORTED, false}, {EINTR, false}, {EINVAL, false},
};

/* It is not asked while it rests, and asked again afterwards. */
START_TEST(it_rests)
{
    struct rs_loop *loop = NULL;
    struct rs_starved s;
    struct rs_io io = {.fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK), .fn = on_io};
    struct rs_error err = {0};

    calls = 0;
    ck_assert_int_eq(rs_loop_new(&loop, &err), 0);
    ck_assert_int_eq(rs_io_start(&io, loop, EPOLLIN, &err), 0);
    rs_starved_init(&s, &io, loop, "test");
    ck_assert_int_eq(rs_loop_turn(loop, 0), 0);
    ck_assert_int_eq(calls, 1);
    ck_assert_int_eq(rs_starved_failed(&s, errors[_i].error), errors[_i].starved);
    ck_assert_int_eq(s.told, errors[_i].starved);
    ck_assert_int_eq(s.timer.loop != NULL, errors[_i].starved);
    ck_assert_int_eq(rs_loop_turn(loop, 0), 0);
    ck_assert_int_eq(calls, errors[_i].starved ? 1 : 2);
    if (errors[_i].starved) {
        rs_timer_start(&s.timer, loop, rs_clock_now()); /* as if the time had passed */
        ck_assert_int_eq(rs_loop_turn(loop, 0), 0);
        ck_assert_int_eq(rs_loop_turn(loop, 0), 0);
        ck_assert_int_ge(calls, 2);
    }
    rs_starved_stop(&s);
    rs_starved_stop(&s);
    rs_io_stop(&io);
    close(io.fd);
    rs_loop_free(loop);
}
END_TEST

/* Said once for as long as failures follow each other. */
START_TEST(it_is_told_once)
{
    struct rs_loop *loop = NULL;
    struct rs_starved s;
    struct rs_io io = {.fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK), .fn = on_io};
    struct rs_error err = {0};

    ck_assert_int_eq(rs_loop_new(&loop, &err), 0);
    ck_assert_int_eq(rs_io_start(&io, loop, EPOLLIN, &err), 0);
    rs_starved_init(&s, &io, loop, "test");
    rs_starved_accepted(&s);
    ck_assert(!s.told);
    ck_assert(rs_starved_failed(&s, EMFILE));
    rs_starved_accepted(&s); /* one got through: that is not the end of it */
    ck_assert(s.told);
    s.failed_at -= 6 * RS_SEC;
    rs_starved_accepted(&s);
    ck_assert(!s.told);
    rs_starved_stop(&s);
    rs_io_stop(&io);
    close(io.fd);
    rs_loop_free(loop);
}
END_TEST

RS_CHECK_MAIN("starved", tcase_add_loop_test(tc, it_rests, 0, RS_COUNT(errors));
              tcase_add_test(tc, it_is_told_once);)
