/* Why replicas have no node: for each node what is asked, what is free, and what would make it fit. */
#include "sched/controller-why.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/resource/labels.h"
#include "sched/controller-core.h"
#include "sched/controller-roll.h"

#include <stdlib.h>
#include <string.h>

enum { NODES_MAX = 20, HOLDERS_MAX = 3 };

/* --- one node ------------------------------------------------------------------------------------ */

static int64_t amount_of(const struct rs_resources *r, const char *name)
{
    if (strcmp(name, "CPU") == 0)
        return r->cpu;
    if (strcmp(name, "GPU") == 0)
        return r->gpu;
    return strcmp(name, "memory") == 0 ? r->memory : rs_resources_custom(r, name);
}

static json_t *amount(const char *name, int64_t v)
{
    return strcmp(name, "memory") == 0 ? json_integer(v) : rs_ct_number(rs_fixed_double(v));
}

struct holder {
    char *who;
    int64_t amount;
};

static int most_first(const void *a, const void *b)
{
    int64_t x = ((const struct holder *)a)->amount, y = ((const struct holder *)b)->amount;

    return (x < y) - (x > y);
}

static unsigned slots_on(const struct rs_ct_deployment *d, const struct rs_ct_node *n)
{
    unsigned count = 0;

    for (size_t i = 0; i < d->n_slots; i++)
        count += d->slots[i].node == n;
    return count;
}

static int64_t held(const struct rs_ct_deployment *d, const struct rs_ct_node *n, const char *name)
{
    return d->conf ? amount_of(&d->conf->resources, name) * slots_on(d, n) : 0;
}

/* Who has most of what is short on that node. */
static json_t *holders(const struct rs_controller *c, const struct rs_ct_node *n, const char *name)
{
    json_t *list = json_array();
    struct holder *all = NULL;
    size_t count = 0, cap = 0;

    for (size_t i = 0; i < rs_ct_all_slots(c); i++) {
        const struct rs_ct_app *app = rs_ct_all_at(c, i);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            const struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);
            int64_t has = d ? held(d, n, name) : 0;

            for (size_t o = 0; d && o < d->n_old; o++)
                has += held(d->old[o], n, name);
            if (has <= 0)
                continue;
            all = rs_grow(all, &cap, count + 1, sizeof(*all));
            all[count++] = (struct holder){rs_asprintf("%s#%s", app->name, d->name), has};
        }
    }
    if (count > 1)
        qsort(all, count, sizeof(*all), most_first);
    for (size_t i = 0; i < count; i++) {
        if (i < HOLDERS_MAX)
            json_array_append_new(list, json_pack("{s:s, s:o}", "who", all[i].who, "amount",
                                                  amount(name, all[i].amount)));
        free(all[i].who);
    }
    free(all);
    return list;
}

static void lacks(json_t *list, const struct rs_controller *c, const struct rs_ct_node *n,
                  const char *name, int64_t asked)
{
    int64_t total = amount_of(&n->total, name), spare = amount_of(&n->spare, name);

    if (asked <= 0 || spare >= asked)
        return;
    json_array_append_new(list, json_pack("{s:s, s:o, s:o, s:o, s:o, s:b, s:o}", "resource", name,
                                          "asked", amount(name, asked), "free", amount(name, spare),
                                          "total", amount(name, total), "more",
                                          amount(name, asked - spare), "never",
                                          (int)(total < asked), "held_by", holders(c, n, name)));
}

static json_t *shortages(const struct rs_controller *c, const struct rs_ct_node *n,
                         const struct rs_resources *want)
{
    json_t *list = json_array();

    lacks(list, c, n, "CPU", want->cpu);
    lacks(list, c, n, "GPU", want->gpu);
    lacks(list, c, n, "memory", want->memory);
    for (size_t i = 0; i < want->count; i++)
        lacks(list, c, n, want->custom[i].name, want->custom[i].amount);
    return list;
}

/* {"region": {"asked": "eu", "has": "us" or null}} */
static json_t *other_labels(const struct rs_ct_node *n, json_t *selector)
{
    json_t *differ = json_object(), *value;
    const char *key;

    json_object_foreach (selector, key, value) {
        rs_auto(rs_json_decrefp) json_t *one = json_pack("{s:O}", key, value);
        json_t *has = json_object_get(n->labels, key);

        if (!rs_labels_match(n->labels, one))
            json_object_set_new(
                differ, key,
                json_pack("{s:O, s:O}", "asked", value, "has", has ? has : json_null()));
    }
    return differ;
}

static json_t *selector_of(const struct rs_ct_deployment *d)
{
    return json_object_get(json_object_get(d->conf->json, "ray_actor_options"), "label_selector");
}

/* What stands between the node and one more replica. */
static json_t *node_entry(const struct rs_ct_deployment *d, const struct rs_ct_node *n)
{
    unsigned here = slots_on(d, n), most = (unsigned)d->conf->max_replicas_per_node;
    json_t *j = json_pack("{s:s}", "node", n->name);
    rs_auto(rs_json_decrefp) json_t *labels = other_labels(n, selector_of(d));

    if (n->draining)
        json_object_set_new(j, "leaving", json_true());
    if (json_object_size(labels))
        json_object_set(j, "labels", labels);
    if (most && here >= most)
        json_object_set_new(j, "limit",
                            json_pack("{s:i, s:i}", "replicas", (int)here, "most", (int)most));
    json_object_set_new(j, "lacks", shortages(d->app->controller, n, &d->conf->resources));
    return j;
}

/* --- groups -------------------------------------------------------------------------------------- */

static unsigned times_in(struct rs_resources *spare, const struct rs_resources *want, unsigned most)
{
    unsigned n = 0;

    while (n < most && rs_resources_take(spare, want))
        n++;
    return n;
}

/* [{"each": {..}, "count": n}]: equal bundles that follow each other are one entry. */
static json_t *bundles_of(const struct rs_ct_deployment *d)
{
    const json_t *own = json_object_get(d->conf->json, "placement_group_bundles");
    unsigned times = d->conf->gang_size > 0 ? (unsigned)d->conf->gang_size : 1;
    json_t *list = json_array();
    size_t n = json_array_size(own);

    for (size_t i = 0; i < (n ? n : 1); i++) {
        rs_auto(rs_json_decrefp) json_t *each =
            n ? json_deep_copy(json_array_get(own, i)) : rs_resources_json(&d->conf->resources);
        json_t *last = json_array_get(list, json_array_size(list) - 1);

        if (last && json_equal(json_object_get(last, "each"), each))
            json_object_set_new(last, "count",
                                json_integer(rs_json_int(last, "count", 0) + (int64_t)times));
        else
            json_array_append_new(list, json_pack("{s:O, s:i}", "each", each, "count", (int)times));
    }
    return list;
}

/* {"node", "free": {..}, "fit": how many of the largest kind of bundle}. */
static json_t *group_entry(const struct rs_ct_deployment *d, const struct rs_ct_node *n,
                           const json_t *bundles)
{
    rs_auto(rs_json_decrefp) json_t *labels = other_labels(n, selector_of(d));
    const json_t *first = json_array_get(bundles, 0);
    struct rs_resources want = {0}, spare = {0};
    struct rs_error err = {0};
    unsigned fit = 0;
    json_t *j = json_pack("{s:s, s:o}", "node", n->name, "free", rs_resources_json(&n->spare));

    rs_resources_copy(&spare, &n->spare);
    if (!n->draining && !json_object_size(labels) &&
        rs_resources_from_json(&want, json_object_get(first, "each"), &err) == 0)
        fit = times_in(&spare, &want, (unsigned)rs_json_int(first, "count", 0));
    json_object_set_new(j, "fit", json_integer(fit));
    if (n->draining)
        json_object_set_new(j, "leaving", json_true());
    if (json_object_size(labels))
        json_object_set(j, "labels", labels);
    rs_resources_fini(&want);
    rs_resources_fini(&spare);
    return j;
}

static const char *strategy_of(const struct rs_ct_deployment *d)
{
    const json_t *gang = json_object_get(d->conf->json, "gang_scheduling_config");

    return d->conf->gang_size > 0 ? rs_json_str(gang, "gang_placement_strategy", "PACK")
                                  : rs_json_str(d->conf->json, "placement_group_strategy", "PACK");
}

/* --- all of it ----------------------------------------------------------------------------------- */

/* Of one resource: none of it missing is 0, all of it 1; more than the node has at all is far away. */
static double distance_by(const struct rs_ct_node *n, const char *name, int64_t asked)
{
    int64_t spare = amount_of(&n->spare, name);

    if (asked <= 0 || spare >= asked)
        return 0;
    return (double)(asked - spare) / (double)asked + (amount_of(&n->total, name) < asked ? 100 : 0);
}

/* How far the node is from taking one more. */
static double distance(const struct rs_ct_deployment *d, const struct rs_ct_node *n)
{
    const struct rs_resources *want = &d->conf->resources;
    double sum = distance_by(n, "CPU", want->cpu) + distance_by(n, "GPU", want->gpu) +
                 distance_by(n, "memory", want->memory);

    for (size_t i = 0; i < want->count; i++)
        sum += distance_by(n, want->custom[i].name, want->custom[i].amount);
    if (!rs_labels_match(n->labels, selector_of(d)))
        sum += 1000;
    return sum + (n->draining ? 10000 : 0);
}

struct candidate {
    const struct rs_ct_node *node;
    double distance;
    size_t nr;
};

static int nearest_first(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    return (x->nr > y->nr) - (x->nr < y->nr);
}

static void add_nodes(const struct rs_ct_deployment *d, json_t *r, const json_t *bundles)
{
    const struct rs_controller *c = d->app->controller;
    json_t *list = json_array();
    size_t n = 0;
    struct candidate *all = rs_alloc((rs_map_count(&c->nodes) + 1) * sizeof(*all));

    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *node = rs_map_at(&c->nodes, i, NULL);

        if (node) {
            all[n] = (struct candidate){node, distance(d, node), n};
            n++;
        }
    }
    if (n > 1)
        qsort(all, n, sizeof(*all), nearest_first);
    for (size_t i = 0; i < n && i < NODES_MAX; i++)
        json_array_append_new(list, bundles ? group_entry(d, all[i].node, bundles)
                                            : node_entry(d, all[i].node));
    json_object_set_new(r, "nodes", list);
    if (n > NODES_MAX)
        json_object_set_new(r, "nodes_left_out", json_integer((json_int_t)(n - NODES_MAX)));
    free(all);
}

void rs_ct_why_place(const struct rs_ct_deployment *d, json_t *list)
{
    bool grouped = rs_deployment_conf_grouped(d->conf);
    unsigned wanted = rs_ct_run(d);
    size_t missing = wanted > d->n_slots ? wanted - d->n_slots : 0;
    bool alone = rs_map_count(&d->app->controller->nodes) == 0;
    json_t *r, *selector = selector_of(d);

    if (missing == 0 || d->roll.full) /* that an update waits for room says why-roll */
        return;
    r = rs_ct_reason(list, "pending",
                     alone     ? "no_node"
                     : grouped ? "no_room_together"
                               : "no_room",
                     "bad");
    json_object_set_new(r, "missing", json_integer((json_int_t)missing));
    json_object_set_new(r, "wanted", json_integer(wanted));
    json_object_set_new(r, "each", rs_resources_json(&d->conf->resources));
    if (json_object_size(selector))
        json_object_set(r, "selector", selector);
    if (grouped) {
        json_t *bundles = bundles_of(d);

        json_object_set_new(r, "strategy", json_string(strategy_of(d)));
        json_object_set_new(r, "gang_size", json_integer(d->conf->gang_size));
        json_object_set_new(r, "bundles", bundles);
        add_nodes(d, r, bundles);
    } else {
        add_nodes(d, r, NULL);
    }
}
