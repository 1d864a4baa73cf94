/* The event loop: epoll, a heap of timers, a mailbox with an eventfd.
 *
 * A turn samples the clock once, so that everything that happens in it happened at one time. Events
 * are fetched in batches; stopping an io clears it from the batch being walked, so a callback may
 * free any other object. The mailbox's eventfd is written only when the mailbox was empty: under
 * load many posts cost one wake-up.
 */
#include "core/loop/loop.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { BATCH = 128 };
#define LONGEST (86400 * RS_SEC) /* asleep: epoll_wait counts in an int */

struct posted {
    void (*fn)(void *arg);
    void *arg;
};

struct rs_loop {
    int epoll_fd, wake_fd;
    struct rs_io wake;
    size_t ios; /* started ones */
    int64_t now;
    bool stop;
    struct epoll_event batch[BATCH];
    int batch_len, batch_at;
    struct rs_timer **heap;
    size_t timers, heap_cap;
    uint64_t timer_seq;
    struct rs_list after;
    bool after_added;     /* since the last walk over the hooks began */
    pthread_mutex_t lock; /* guards the three fields below, nothing else */
    struct posted *mail;
    size_t mail_len, mail_cap;
    struct posted *spare; /* the loop thread's side of the double buffer */
    size_t spare_cap;
};

/* --- timers ------------------------------------------------------------------------------------ */

static bool earlier(const struct rs_timer *a, const struct rs_timer *b)
{
    return a->deadline != b->deadline ? a->deadline < b->deadline : a->seq < b->seq;
}

static void heap_set(struct rs_loop *l, size_t at, struct rs_timer *t)
{
    l->heap[at] = t;
    t->at = at;
}

static void heap_up(struct rs_loop *l, struct rs_timer *t)
{
    size_t at = t->at;

    while (at > 0 && earlier(t, l->heap[(at - 1) / 2])) {
        heap_set(l, at, l->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_set(l, at, t);
}

static void heap_down(struct rs_loop *l, struct rs_timer *t)
{
    size_t at = t->at;

    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= l->timers)
            break;
        if (child + 1 < l->timers && earlier(l->heap[child + 1], l->heap[child]))
            child++;
        if (!earlier(l->heap[child], t))
            break;
        heap_set(l, at, l->heap[child]);
        at = child;
    }
    heap_set(l, at, t);
}

void rs_timer_start(struct rs_timer *t, struct rs_loop *l, int64_t deadline)
{
    rs_timer_stop(t);
    t->loop = l;
    t->deadline = deadline;
    t->seq = l->timer_seq++;
    l->heap = rs_grow(l->heap, &l->heap_cap, l->timers + 1, sizeof(struct rs_timer *));
    heap_set(l, l->timers++, t);
    heap_up(l, t);
}

void rs_timer_stop(struct rs_timer *t)
{
    struct rs_loop *l = t->loop;
    struct rs_timer *last;

    if (!l)
        return;
    t->loop = NULL;
    last = l->heap[--l->timers];
    if (last == t)
        return;
    heap_set(l, t->at, last);
    heap_up(l, last);
    heap_down(l, last);
}

static int fire_timers(struct rs_loop *l)
{
    /* Timers started meanwhile with a deadline in the past wait for the next turn. */
    uint64_t newest = l->timer_seq;

    while (l->timers && l->heap[0]->deadline <= l->now && l->heap[0]->seq < newest) {
        struct rs_timer *t = l->heap[0];
        int r;

        rs_timer_stop(t);
        r = t->fn(t);
        if (r)
            return r;
    }
    return 0;
}

/* --- descriptors ------------------------------------------------------------------------------- */

int rs_io_start(struct rs_io *io, struct rs_loop *l, uint32_t events, struct rs_error *err)
{
    struct epoll_event ev = {.events = events, .data.ptr = io};

    assert(!io->loop);
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, io->fd, &ev) < 0)
        return rs_error_errno(err, errno, "epoll_ctl add fd %d", io->fd);
    io->loop = l;
    l->ios++;
    return 0;
}

void rs_io_watch(struct rs_io *io, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = io};
    int r;

    assert(io->loop);
    r = epoll_ctl(io->loop->epoll_fd, EPOLL_CTL_MOD, io->fd, &ev);
    assert(r == 0);
    (void)r;
}

void rs_io_stop(struct rs_io *io)
{
    struct rs_loop *l = io->loop;

    if (!l)
        return;
    (void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, io->fd, NULL);
    io->loop = NULL;
    l->ios--;
    for (int i = l->batch_at; i < l->batch_len; i++) {
        if (l->batch[i].data.ptr == io)
            l->batch[i].data.ptr = NULL;
    }
}

/* --- the door for other threads ---------------------------------------------------------------- */

void rs_loop_post(struct rs_loop *l, void (*fn)(void *arg), void *arg)
{
    bool was_empty;

    pthread_mutex_lock(&l->lock);
    was_empty = l->mail_len == 0;
    l->mail = rs_grow(l->mail, &l->mail_cap, l->mail_len + 1, sizeof(*l->mail));
    l->mail[l->mail_len++] = (struct posted){fn, arg};
    pthread_mutex_unlock(&l->lock);
    if (was_empty) {
        ssize_t n = write(l->wake_fd, &(uint64_t){1}, sizeof(uint64_t));

        (void)n; /* it can only be full, and then the loop is awake */
    }
}

static size_t run_mail(struct rs_loop *l)
{
    struct posted *mail;
    size_t n, cap;

    pthread_mutex_lock(&l->lock);
    mail = l->mail;
    n = l->mail_len;
    cap = l->mail_cap;
    l->mail = l->spare;
    l->mail_cap = l->spare_cap;
    l->mail_len = 0;
    pthread_mutex_unlock(&l->lock);
    l->spare = NULL; /* a callback may turn this loop: it must not see the batch in hand */
    l->spare_cap = 0;
    for (size_t i = 0; i < n; i++)
        mail[i].fn(mail[i].arg);
    free(l->spare);
    l->spare = mail;
    l->spare_cap = cap;
    return n;
}

static int on_wake(struct rs_io *io, uint32_t events)
{
    uint64_t count;
    ssize_t n = read(io->fd, &count, sizeof(count));

    (void)n;
    (void)events;
    run_mail(io->loop);
    return 0;
}

/* --- after hooks ------------------------------------------------------------------------------- */

void rs_after_add(struct rs_loop *l, struct rs_after *a)
{
    rs_list_init(&a->link);
    rs_list_push_back(&l->after, &a->link);
    l->after_added = true;
}

void rs_after_remove(struct rs_after *a)
{
    if (a->link.next)
        rs_list_remove(&a->link);
}

/* --- turns ------------------------------------------------------------------------------------- */

static int64_t shortest(int64_t a, int64_t b)
{
    if (a < 0)
        return b;
    return b < 0 || a < b ? a : b;
}

/* Runs the hooks and answers how long to sleep: ns, -1 for ever. What one hook brings about is often
 * for another to finish, added meanwhile (a request was read: its frame is to be written): then all
 * have a second turn before the descriptors are looked at. */
static int64_t sleep_time(struct rs_loop *l, int64_t max_wait)
{
    int64_t wait = max_wait;

    l->after_added = true;
    for (int round = 0; round < 2 && l->after_added; round++) {
        wait = max_wait;
        l->after_added = false;
        rs_list_for_each (it, &l->after) {
            struct rs_after *a = rs_container_of(it, struct rs_after, link);

            wait = shortest(wait, a->fn(a));
        }
    }
    if (l->timers) {
        int64_t left = l->heap[0]->deadline - rs_clock_now();

        wait = shortest(wait, left > 0 ? left : 0);
    }
    return l->stop || l->after_added ? 0 : wait;
}

int rs_loop_turn(struct rs_loop *l, int64_t max_wait)
{
    int64_t wait = sleep_time(l, max_wait);
    /* Round up: waking a little late beats spinning through the last millisecond. */
    int64_t left = wait > LONGEST ? LONGEST : wait;
    int ms = wait < 0 ? -1 : (int)((left + RS_MS - 1) / RS_MS);
    int r;

    l->batch_at = 0;
    l->batch_len = epoll_wait(l->epoll_fd, l->batch, BATCH, ms);
    if (l->batch_len < 0)
        l->batch_len = 0;
    l->now = rs_clock_now();
    r = fire_timers(l);
    while (r == 0 && l->batch_at < l->batch_len) {
        struct epoll_event *ev = &l->batch[l->batch_at++];
        struct rs_io *io = ev->data.ptr;

        if (io)
            r = io->fn(io, ev->events);
    }
    l->batch_len = l->batch_at = 0;
    return r;
}

int rs_loop_run(struct rs_loop *l)
{
    int r = 0;

    l->stop = false;
    while (!l->stop && r == 0)
        r = rs_loop_turn(l, -1);
    return r;
}

void rs_loop_stop(struct rs_loop *l)
{
    l->stop = true;
}

int64_t rs_loop_now(const struct rs_loop *l)
{
    return l->now;
}

int rs_loop_new(struct rs_loop **ret, struct rs_error *err)
{
    struct rs_loop *l = rs_alloc(sizeof(*l));

    rs_list_init(&l->after);
    pthread_mutex_init(&l->lock, NULL);
    l->now = rs_clock_now();
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->wake = (struct rs_io){.fd = l->wake_fd, .fn = on_wake};
    if (l->epoll_fd < 0 || l->wake_fd < 0) {
        rs_error_errno(err, errno, "cannot create an event loop");
        rs_loop_free(l);
        return -1;
    }
    if (rs_io_start(&l->wake, l, EPOLLIN, err) < 0) {
        rs_loop_free(l);
        return -1;
    }
    *ret = l;
    return 0;
}

void rs_loop_free(struct rs_loop *l)
{
    if (!l)
        return;
    while (run_mail(l) > 0)
        ;
    rs_io_stop(&l->wake);
    assert(l->ios == 0 && l->timers == 0);
    rs_closep(&l->epoll_fd);
    rs_closep(&l->wake_fd);
    pthread_mutex_destroy(&l->lock);
    free(l->heap);
    free(l->mail);
    free(l->spare);
    free(l);
}
