#include "cmd/probes.h"

#include "core/base/alloc.h"

#include <stdlib.h>

struct probe {
    struct rs_probes *all;
    char *replica_id;
    struct rs_probe *handle; /* NULL: it could not be started, and `failed` will say so */
    struct rs_timer failed;
    struct rs_error why;
};

static void probe_free(struct probe *p)
{
    if (!p)
        return;
    rs_timer_stop(&p->failed);
    rs_probe_free(p->handle);
    free(p->replica_id);
    free(p);
}

static void on_probed(bool ok, const char *why, void *arg)
{
    struct probe *p = arg;

    /* `why` lies in the probe, and the next one may be started: out of the map, but not gone. */
    rs_map_remove(&p->all->by_replica, p->replica_id);
    p->all->on_probed(p->replica_id, ok, why, p->all->arg);
    probe_free(p);
}

static int on_failed(struct rs_timer *t)
{
    struct probe *p = rs_container_of(t, struct probe, failed);

    on_probed(false, p->why.msg, p);
    return 0;
}

void rs_probes_start(struct rs_probes *all, const char *replica_id,
                     const struct rs_probe_conf *conf)
{
    struct probe *p = rs_alloc(sizeof(*p));

    p->all = all;
    p->replica_id = rs_strdup(replica_id);
    p->failed.fn = on_failed;
    probe_free(rs_map_put(&all->by_replica, replica_id, p));
    /* Who asked may not be called back from here: a failure is told in the next turn. */
    if (rs_probe_start(&p->handle, all->loop, conf, on_probed, p, &p->why) < 0)
        rs_timer_start(&p->failed, all->loop, 0);
}

void rs_probes_fini(struct rs_probes *all)
{
    for (size_t i = 0; i < rs_map_slots(&all->by_replica); i++)
        probe_free(rs_map_at(&all->by_replica, i, NULL));
    rs_map_fini(&all->by_replica);
}
