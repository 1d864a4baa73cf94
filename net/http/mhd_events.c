#include "net/http/mhd_events.h"

#include "core/base/alloc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The model: an executable's own, whatever flags a library is compiled with. */
static _Thread_local struct rs_mhd_events *current __attribute__((tls_model("local-exec")));

static _Thread_local struct rs_starved *starved __attribute__((tls_model("local-exec")));

void rs_mhd_accept_for(struct rs_starved *s)
{
    starved = s;
}

void rs_mhd_events_init(struct rs_mhd_events *e, struct rs_loop *loop)
{
    *e = (struct rs_mhd_events){
        .loop = loop, .epoll_fd = -1, .closed = -1, .wake = e->wake, .hup = e->hup};
    rs_list_init(&e->due);
}

void rs_mhd_events_fini(struct rs_mhd_events *e)
{
    if (current == e)
        current = NULL;
    free(e->by_fd);
    e->by_fd = NULL;
    e->size = 0;
}

void rs_mhd_events_enter(struct rs_mhd_events *e)
{
    current = e;
}

static void tell(struct rs_mhd_fd *f)
{
    if (!f->wanted || !f->got || !rs_list_empty(&f->due))
        return;
    rs_list_push_back(&f->events->due, &f->due);
    f->events->wake(f->events);
}

static int on_io(struct rs_io *io, uint32_t events)
{
    struct rs_mhd_fd *f = rs_container_of(io, struct rs_mhd_fd, io);

    f->got |= events & (EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLERR | EPOLLHUP);
    tell(f);
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        f->events->hup(f);
    return 0;
}

static void remember(struct rs_mhd_events *e, struct rs_mhd_fd *f)
{
    size_t at = (size_t)f->io.fd, size = e->size ? e->size : 64;

    if (at >= e->size) {
        while (size <= at)
            size *= 2;
        e->by_fd = rs_realloc(e->by_fd, size * sizeof(struct rs_mhd_fd *));
        memset(e->by_fd + e->size, 0, (size - e->size) * sizeof(struct rs_mhd_fd *));
        e->size = size;
    }
    e->by_fd[at] = f;
}

int rs_mhd_fd_open(struct rs_mhd_events *e, struct rs_mhd_fd *f, int fd)
{
    *f = (struct rs_mhd_fd){.io = {.fd = fd, .fn = on_io}, .events = e};
    rs_list_init(&f->due);
    e->closed = -1;
    remember(e, f);
    return rs_io_start(&f->io, e->loop, EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET, NULL);
}

void rs_mhd_fd_close(struct rs_mhd_fd *f)
{
    struct rs_mhd_events *e = f->events;

    rs_io_stop(&f->io);
    rs_list_remove(&f->due);
    if (e->by_fd[f->io.fd] != f)
        return;
    e->by_fd[f->io.fd] = NULL;
    e->closed = f->io.fd;
}

void rs_mhd_fd_look_again(struct rs_mhd_fd *f)
{
    f->got |= EPOLLIN;
    tell(f);
}

/* --- what libmicrohttpd calls ------------------------------------------------------------------ */

int rs_mhd_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event)
{
    struct rs_mhd_events *e = current;
    struct rs_mhd_fd *f;

    if (!e || epoll_fd != e->epoll_fd)
        return epoll_ctl(epoll_fd, op, fd, event);
    f = (size_t)fd < e->size ? e->by_fd[fd] : NULL;
    if (!f)
        return fd == e->closed && op == EPOLL_CTL_DEL ? 0 : epoll_ctl(epoll_fd, op, fd, event);
    f->wanted = op != EPOLL_CTL_DEL;
    if (f->wanted) {
        f->data = event->data.ptr;
        tell(f);
    } else {
        rs_list_remove(&f->due);
    }
    return 0;
}

/* Left to itself, libmicrohttpd either tries again without end, or stops until it closes a connection,
 * though it may have none or what is missing may be free long before. */
int rs_mhd_accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
    int r = accept4(fd, sa, len, flags);

    if (!starved)
        return r;
    if (r >= 0)
        rs_starved_accepted(starved);
    else if (rs_starved_failed(starved, errno))
        errno = EAGAIN;
    return r;
}

int rs_mhd_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout)
{
    struct rs_mhd_events *e = current;
    struct rs_list *it;
    int n = 0;

    if (!e || epoll_fd != e->epoll_fd)
        return epoll_wait(epoll_fd, events, max, timeout);
    if (e->own) {
        e->own = false;
        n = epoll_wait(epoll_fd, events, max, 0);
        if (n < 0)
            return n;
    }
    while (n < max && (it = rs_list_pop_front(&e->due))) {
        struct rs_mhd_fd *f = rs_container_of(it, struct rs_mhd_fd, due);

        events[n++] = (struct epoll_event){.events = f->got, .data.ptr = f->data};
        f->got = 0;
    }
    return n;
}
