/* What libmicrohttpd is told of sockets, in place of its own epoll set. */
#include "net/http/mhd_events.h"

#include "tests/unit/check_main.h"

#include <sys/socket.h>
#include <unistd.h>

enum { EPOLL_FD = 1000000 }; /* none: what goes to the system fails */

static struct rs_loop *loop;
static struct rs_mhd_events events;
static struct rs_mhd_fd f;
static int peer;
static unsigned wakes, hups;

static void on_wake(struct rs_mhd_events *e)
{
    ck_assert_ptr_eq(e, &events);
    wakes++;
}

static void on_hup(struct rs_mhd_fd *of)
{
    ck_assert_ptr_eq(of, &f);
    hups++;
}

static void begin(void)
{
    struct rs_error err = {0};
    int pair[2];

    ck_assert_int_eq(rs_loop_new(&loop, &err), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    events = (struct rs_mhd_events){.wake = on_wake, .hup = on_hup};
    rs_mhd_events_init(&events, loop);
    events.epoll_fd = EPOLL_FD;
    rs_mhd_events_enter(&events);
    ck_assert_int_eq(rs_mhd_fd_open(&events, &f, pair[0]), 0);
    peer = pair[1];
    wakes = hups = 0;
}

static void end(void)
{
    rs_mhd_fd_close(&f);
    rs_mhd_fd_close(&f);
    close(f.io.fd);
    close(peer);
    rs_mhd_events_fini(&events);
    rs_loop_free(loop);
}

static int ctl(int op, void *data)
{
    struct epoll_event ev = {.data.ptr = data};

    return rs_mhd_epoll_ctl(EPOLL_FD, op, f.io.fd, &ev);
}

/* The events of the one descriptor; 0: none came. */
static uint32_t fetch(void *data)
{
    struct epoll_event ev[4];
    int n = rs_mhd_epoll_wait(EPOLL_FD, ev, 4, 0);

    ck_assert_int_le(n, 1);
    if (n < 1)
        return 0;
    ck_assert_ptr_eq(ev[0].data.ptr, data);
    return ev[0].events;
}

static void turn(void)
{
    ck_assert_int_eq(rs_loop_turn(loop, 0), 0);
}

START_TEST(tells_what_came_once)
{
    int mark;

    ck_assert_int_eq(ctl(EPOLL_CTL_ADD, &mark), 0);
    ck_assert_uint_eq(fetch(&mark), 0);
    turn();
    ck_assert_uint_eq(fetch(&mark), EPOLLOUT);
    ck_assert_uint_eq(fetch(&mark), 0);
    ck_assert_int_eq(write(peer, "x", 1), 1);
    turn();
    ck_assert_uint_eq(wakes, 2);
    ck_assert_uint_ne(fetch(&mark) & EPOLLIN, 0);
    ck_assert_uint_eq(fetch(&mark), 0);
}
END_TEST

/* It left the set, as a suspended connection does, and comes back. */
START_TEST(keeps_what_comes_meanwhile)
{
    int first, second;

    ck_assert_int_eq(ctl(EPOLL_CTL_ADD, &first), 0);
    turn();
    ck_assert_int_eq(ctl(EPOLL_CTL_DEL, NULL), 0);
    ck_assert_uint_eq(fetch(NULL), 0); /* what was not fetched is not told either */
    wakes = 0;
    ck_assert_int_eq(write(peer, "x", 1), 1);
    turn();
    ck_assert_uint_eq(wakes, 0);
    ck_assert_uint_eq(fetch(NULL), 0);
    ck_assert_int_eq(ctl(EPOLL_CTL_ADD, &second), 0);
    ck_assert_uint_eq(wakes, 1);
    ck_assert_uint_ne(fetch(&second) & EPOLLIN, 0);
}
END_TEST

START_TEST(hang_ups_are_told_at_once)
{
    int mark;

    turn();
    ck_assert_uint_eq(hups, 0);
    shutdown(peer, SHUT_WR);
    turn();
    ck_assert_uint_eq(hups, 1); /* also while libmicrohttpd does not ask */
    ck_assert_int_eq(ctl(EPOLL_CTL_ADD, &mark), 0);
    ck_assert_uint_ne(fetch(&mark) & EPOLLIN, 0);
    close(peer);
    peer = -1;
    turn();
    ck_assert_uint_ge(hups, 2);
    ck_assert_uint_ne(fetch(&mark) & EPOLLHUP, 0);
}
END_TEST

/* libmicrohttpd takes a connection out of its set after it was told of the end. */
START_TEST(what_is_closed_may_be_taken_out_again)
{
    int mark;

    ck_assert_int_eq(ctl(EPOLL_CTL_ADD, &mark), 0);
    turn();
    rs_mhd_fd_close(&f);
    ck_assert_uint_eq(fetch(&mark), 0);
    ck_assert_int_eq(ctl(EPOLL_CTL_DEL, NULL), 0);
    ck_assert_int_eq(rs_mhd_epoll_ctl(EPOLL_FD, EPOLL_CTL_DEL, f.io.fd + 1000, NULL), -1);
}
END_TEST

/* Other daemons, on this thread or another, have the system's. */
START_TEST(other_sets_are_the_system_s)
{
    int own = epoll_create1(EPOLL_CLOEXEC), mark;
    struct epoll_event ev = {.events = EPOLLOUT, .data.ptr = &mark}, got;

    ck_assert_int_eq(rs_mhd_epoll_ctl(own, EPOLL_CTL_ADD, f.io.fd, &ev), 0);
    ck_assert_int_eq(rs_mhd_epoll_wait(own, &got, 1, 0), 1);
    ck_assert_ptr_eq(got.data.ptr, &mark);
    close(own);
}
END_TEST

RS_CHECK_MAIN("mhd_events", tcase_add_checked_fixture(tc, begin, end);
              tcase_add_test(tc, tells_what_came_once);
              tcase_add_test(tc, keeps_what_comes_meanwhile);
              tcase_add_test(tc, hang_ups_are_told_at_once);
              tcase_add_test(tc, what_is_closed_may_be_taken_out_again);
              tcase_add_test(tc, other_sets_are_the_system_s);)
