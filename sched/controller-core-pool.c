/* Workers for tasks: as many as the callers have tasks, as far as there is room. */
#include "sched/controller-core.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"

#include <stdlib.h>
#include <string.h>

#define SHRINK_AFTER RS_SEC     /* surplus workers stay so long */
#define WARM_FOR (60 * RS_SEC)  /* and one of them so long */
#define START_RETRIES 3         /* starts in a row that fail before the tasks do */
#define PER_CPU 4               /* workers that ask for no CPU: so many for each one there is */
#define GRACE_S (24.0 * 3600.0) /* a worker that is to go finishes its task */

void rs_ct_pool_free(struct rs_ct_pool *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < rs_map_slots(&p->demands); i++)
        free(rs_map_at(&p->demands, i, NULL));
    rs_map_fini(&p->demands);
    free(p->key);
    free(p);
}

static void add_up(struct rs_ct_pool *p)
{
    p->total = 0;
    for (size_t i = 0; i < rs_map_slots(&p->demands); i++) {
        const struct rs_ct_demand *d = rs_map_at(&p->demands, i, NULL);

        p->total += d ? d->n : 0;
    }
}

static void set_demand(struct rs_ct_pool *p, const char *client, unsigned n)
{
    struct rs_ct_demand *d = rs_map_get(&p->demands, client);

    if (n == 0) {
        free(rs_map_remove(&p->demands, client));
    } else if (d) {
        d->n = n;
    } else {
        d = rs_alloc(sizeof(*d));
        d->n = n;
        rs_map_put(&p->demands, client, d);
    }
    add_up(p);
}

/* --- size --- */

/* Workers of a deployment that lent their CPUs. */
static unsigned waiting(const struct rs_controller *c, const struct rs_ct_deployment *d)
{
    unsigned n = 0;

    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *node = rs_map_at(&c->nodes, i, NULL);

        n += node ? rs_ct_waiting_on(node, d) : 0;
    }
    return n;
}

static unsigned most(const struct rs_controller *c, const struct rs_ct_pool *p)
{
    int64_t cpus = 0;

    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        cpus += n ? n->total.cpu / RS_ONE : 0;
    }
    return (unsigned)(cpus < 1 ? 1 : cpus) * PER_CPU + waiting(c, p->d);
}

static void resize(struct rs_controller *c, struct rs_ct_pool *p, int64_t now)
{
    unsigned limit = most(c, p);
    unsigned need = p->total < limit ? p->total : limit;

    if (need >= p->d->wanted) {
        p->d->wanted = need;
        p->shrink_at = 0;
    } else if (!p->shrink_at) {
        p->shrink_at = now + SHRINK_AFTER;
    } else if (now >= p->shrink_at) {
        unsigned warm = now - p->idle_since < WARM_FOR || p->total > 0 ? 1 : 0;

        p->d->wanted = need > warm ? need : warm;
        p->shrink_at = p->d->wanted > need ? now + WARM_FOR : 0;
    }
}

static void observe(struct rs_controller *c, struct rs_ct_pool *p)
{
    struct rs_ct_seen s = rs_ct_look(c, p->d);

    if (!p->d->failed && !s.ever_ran && s.start_failures >= START_RETRIES) {
        p->d->failed = true;
        rs_ct_set(&p->d->message,
                  rs_strdup(s.last_error ? s.last_error : "its process could not be started"));
    }
}

void rs_ct_pools_update(struct rs_controller *c, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&c->core.pools); i++) {
        const char *name = NULL;
        struct rs_ct_pool *p = rs_map_at(&c->core.pools, i, &name);

        if (!p)
            continue;
        if (p->total > 0)
            p->idle_since = 0;
        else if (!p->idle_since)
            p->idle_since = now;
        observe(c, p);
        resize(c, p, now);
        if (p->idle_since && now - p->idle_since >= WARM_FOR) {
            rs_ct_core_deployment_gone(p->d);
            rs_map_remove(&c->core.pools, name);
            rs_ct_pool_free(p);
        }
    }
}

bool rs_ct_pools_yield(struct rs_controller *c)
{
    bool some = false;

    for (size_t i = 0; i < rs_map_slots(&c->core.pools); i++) {
        struct rs_ct_pool *p = rs_map_at(&c->core.pools, i, NULL);

        if (!p || p->d->wanted <= p->total || p->d->n_slots <= p->total)
            continue;
        p->d->wanted = p->total;
        p->shrink_at = 0;
        some = true;
    }
    return some;
}

int64_t rs_ct_pools_deadline(const struct rs_controller *c)
{
    int64_t at = INT64_MAX;

    for (size_t i = 0; i < rs_map_slots(&c->core.pools); i++) {
        const struct rs_ct_pool *p = rs_map_at(&c->core.pools, i, NULL);
        int64_t idle = p && p->idle_since ? p->idle_since + WARM_FOR : INT64_MAX;

        if (p && p->shrink_at && p->shrink_at < at)
            at = p->shrink_at;
        if (idle < at)
            at = idle;
    }
    return at;
}

void rs_ct_pools_client_gone(struct rs_controller *c, const char *client, int64_t now)
{
    (void)now;
    for (size_t i = 0; i < rs_map_slots(&c->core.pools); i++) {
        struct rs_ct_pool *p = rs_map_at(&c->core.pools, i, NULL);

        if (p)
            set_demand(p, client, 0);
    }
}

/* --- ops --- */

static json_t *open_pool(struct rs_controller *c, const json_t *msg)
{
    rs_auto(rs_freep) char *key =
        rs_ct_core_name(c, msg, rs_json_str(msg, "key", "")); /* the same shape, the same code */
    json_t *options = json_object_get(msg, "options");
    struct rs_ct_pool *p = rs_map_get(&c->core.pools, key);
    struct rs_ct_deployment *d = NULL;
    struct rs_error err = {0};

    if (!*rs_json_str(msg, "key", ""))
        return rs_ct_core_refuse("ValueError", "pool: expected a key");
    if (p && p->d->failed) { /* another try */
        rs_ct_set(&p->d->version, rs_asprintf("%u", ++c->core.serial));
        p->d->failed = false;
    }
    if (!p) {
        json_t *config =
            json_pack("{s:i, s:i, s:f, s:O}", "max_ongoing_requests", 1,
                      "max_constructor_retry_count", START_RETRIES, "graceful_shutdown_timeout_s",
                      GRACE_S, "ray_actor_options", options ? options : json_null());
        json_t *core = json_pack("{s:s, s:s, s:s}", "kind", "task", "pool", key, "namespace",
                                 rs_json_str(msg, "namespace", ""));

        if (rs_ct_core_deployment(c, msg, key, config, core, &d, &err) < 0)
            return rs_ct_core_refuse("ValueError", "%s", err.msg);
        d->wanted = 0;
        p = rs_alloc(sizeof(*p));
        p->d = d;
        p->key = rs_strdup(key);
        rs_map_put(&c->core.pools, key, p);
    }
    return json_pack("{s:s, s:s}", "app", p->d->app->name, "deployment", p->d->name);
}

static json_t *tell_workers(struct rs_controller *c, const struct rs_ct_pool *p, const json_t *msg)
{
    rs_auto(rs_json_decrefp) json_t *order =
        json_pack("{s:s, s:s, s:{s:s, s:s}}", "app", p->d->app->name, "deployment", p->d->name,
                  "msg", "order", "end_task", "task_id", rs_json_str(msg, "task_id", ""));

    for (size_t s = 0; s < p->d->n_slots; s++) {
        bool told = false;

        for (size_t k = 0; k < s; k++)
            told |= p->d->slots[k].node == p->d->slots[s].node;
        if (!told)
            c->ops.core(p->d->slots[s].node->id, order, c->arg);
    }
    return json_object();
}

json_t *rs_ct_pool_op(struct rs_controller *c, const char *client, const char *op,
                      const json_t *msg, int64_t now)
{
    struct rs_ct_pool *p = rs_map_get(&c->core.pools, rs_json_str(msg, "deployment", ""));
    int64_t n = rs_json_int(msg, "n", 0);

    (void)now;
    if (strcmp(op, "pool") == 0)
        return open_pool(c, msg);
    if (strcmp(op, "demand") != 0 && strcmp(op, "pool_info") != 0 && strcmp(op, "cancel_task") != 0)
        return NULL;
    if (!p)
        return rs_ct_core_refuse("ValueError", "no workers named '%s'",
                                 rs_json_str(msg, "deployment", ""));
    if (strcmp(op, "demand") == 0) {
        set_demand(p, client, n < 0 ? 0 : n > 100000 ? 100000 : (unsigned)n);
        return json_object();
    }
    if (strcmp(op, "cancel_task") == 0)
        return tell_workers(c, p, msg);
    return json_pack("{s:b, s:s?, s:s?}", "failed", (int)p->d->failed, "error",
                     p->d->failed ? p->d->message : NULL, "pending", p->d->blocked);
}
