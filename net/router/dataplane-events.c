/* From the lanes to the control thread. */
#include "core/base/alloc.h"
#include "net/router/dataplane-state.h"

#include <stdlib.h>

struct event {
    struct rs_door *door;
    char *replica_id;
    enum rs_msg type;
    uint64_t stream;
    json_t *msg;
    char *why;
    bool urgent;
    char *app, *deployment;
    void (*tell)(struct rs_dataplane *d, struct event *e);
};

void rs_dataplane_close_door(struct rs_door *door)
{
    if (atomic_fetch_sub_explicit(&door->refs, 1, memory_order_acq_rel) == 1)
        free(door);
}

static void on_event(void *arg)
{
    struct event *e = arg;

    if (e->door->d)
        e->tell(e->door->d, e);
    rs_dataplane_close_door(e->door);
    json_decref(e->msg);
    free(e->replica_id);
    free(e->why);
    free(e->app);
    free(e->deployment);
    free(e);
}

static void post_event(struct rs_dataplane *d, struct event e)
{
    atomic_fetch_add_explicit(&d->door->refs, 1, memory_order_relaxed);
    e.door = d->door;
    rs_loop_post(d->control, on_event, rs_memdup(&e, sizeof(e)));
}

static void tell_replica(struct rs_dataplane *d, struct event *e)
{
    d->ops->on_replica(e->replica_id, e->type, e->stream, e->msg, d->arg);
}

static void tell_gone(struct rs_dataplane *d, struct event *e)
{
    d->ops->on_replica_gone(e->replica_id, e->why, d->arg);
}

static void tell_idle(struct rs_dataplane *d, struct event *e)
{
    d->ops->on_replica_idle(e->replica_id, d->arg);
}

static void tell_choose(struct rs_dataplane *d, struct event *e)
{
    const struct rs_homed *dep = rs_dataplane_home(d, e->app, e->deployment);

    if (d->ops->on_choose && dep->router)
        d->ops->on_choose(e->app, e->deployment, dep->router, e->stream, e->msg, d->arg);
    else if (e->stream)
        rs_dataplane_chosen(d, e->app, e->deployment, e->stream, NULL);
}

void rs_dataplane_post_choose(struct rs_dataplane *d, const char *app, const char *deployment,
                              uint64_t id, json_t *question)
{
    post_event(d, (struct event){.app = rs_strdup(app),
                                 .deployment = rs_strdup(deployment),
                                 .stream = id,
                                 .msg = question,
                                 .tell = tell_choose});
}

static void tell_load(struct rs_dataplane *d, struct event *e)
{
    if (d->ops->on_load)
        d->ops->on_load(e->urgent, d->arg);
}

void rs_dataplane_post_load(struct rs_dataplane *d, bool urgent)
{
    post_event(d, (struct event){.urgent = urgent, .tell = tell_load});
}

void rs_dataplane_post_replica(struct rs_dataplane *d, const char *replica_id, enum rs_msg type,
                               uint64_t stream, json_t *msg)
{
    post_event(d, (struct event){.replica_id = rs_strdup(replica_id),
                                 .type = type,
                                 .stream = stream,
                                 .msg = msg,
                                 .tell = tell_replica});
}

void rs_dataplane_post_gone(struct rs_dataplane *d, const char *replica_id, const char *why)
{
    post_event(d, (struct event){.replica_id = rs_strdup(replica_id),
                                 .why = rs_strdup(why),
                                 .tell = tell_gone});
}

void rs_dataplane_post_idle(struct rs_dataplane *d, const char *replica_id)
{
    post_event(d, (struct event){.replica_id = rs_strdup(replica_id), .tell = tell_idle});
}
