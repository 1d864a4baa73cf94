#include "net/wire/starved.h"

#include "core/base/clock.h"
#include "core/base/log.h"

#include <errno.h>
#include <string.h>

#define REST (100 * RS_MS)
#define CALM (5 * RS_SEC) /* without a failure: it is over */

static int on_timer(struct rs_timer *t)
{
    struct rs_starved *s = rs_container_of(t, struct rs_starved, timer);

    rs_io_watch(s->io, EPOLLIN);
    return 0;
}

void rs_starved_init(struct rs_starved *s, struct rs_io *io, struct rs_loop *loop, const char *what)
{
    *s = (struct rs_starved){.io = io, .loop = loop, .what = what, .timer.fn = on_timer};
}

bool rs_starved_failed(struct rs_starved *s, int error)
{
    if (error != EMFILE && error != ENFILE && error != ENOBUFS && error != ENOMEM)
        return false;
    if (!s->told)
        rs_log_warn("connections have to wait", "listener=\"%s\" why=\"%s\"", s->what,
                    strerror(error));
    s->told = true;
    s->failed_at = rs_loop_now(s->loop);
    rs_io_watch(s->io, 0);
    rs_timer_start(&s->timer, s->loop, s->failed_at + REST);
    return true;
}

void rs_starved_accepted(struct rs_starved *s)
{
    if (!s->told || rs_loop_now(s->loop) - s->failed_at < CALM)
        return;
    s->told = false;
    rs_log_info("connections are accepted again", "listener=\"%s\"", s->what);
}

void rs_starved_stop(struct rs_starved *s)
{
    rs_timer_stop(&s->timer);
}
