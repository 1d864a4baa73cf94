#include "net/router/route.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "net/router/dataplane.h"
#include "net/router/rules.h"
#include "net/router/stage.h"

#include <assert.h>
#include <string.h>

const char *rs_route_key(struct rs_buf *out, const char *app, const char *deployment)
{
    rs_buf_clear(out);
    rs_buf_puts(out, app);
    rs_buf_append(out, "\x1f", 1);
    rs_buf_puts(out, deployment);
    return rs_buf_text(out);
}

static int by_length(const void *a, const void *b)
{
    const struct rs_route *x = a, *y = b;

    if (x->prefix_len != y->prefix_len)
        return x->prefix_len > y->prefix_len ? -1 : 1;
    return strcmp(x->app, y->app);
}

static void fini_route(struct rs_route_table *t, struct rs_route *r)
{
    if (r->cache && t->drop_cache)
        t->drop_cache(r->cache);
    rs_rules_unref(r->rules);
    free(r->app);
    free(r->prefix);
    free(r->ingress);
}

static char *routes_json(const struct rs_routes *routes)
{
    rs_auto(rs_json_decrefp) json_t *j = json_object();

    for (size_t i = 0; i < routes->n_apps; i++) {
        if (routes->apps[i].prefix)
            json_object_set_new(j, routes->apps[i].prefix, json_string(routes->apps[i].name));
    }
    return json_dumps(j, JSON_COMPACT | JSON_PRESERVE_ORDER);
}

static void put_graph(struct rs_route_table *t, struct rs_buf *key, const char *app, unsigned lane)
{
    struct rs_route_target *target = rs_alloc(sizeof(*target));

    *target = (struct rs_route_target){.app = rs_strdup(app),
                                       .deployment = rs_strdup(RS_GRAPH_NAME),
                                       .lane = lane,
                                       .retry_after_s = -1,
                                       .is_graph = true};
    target = rs_map_put(&t->targets, rs_route_key(key, app, RS_GRAPH_NAME), target);
    assert(!target);
}

struct rs_route_table *
rs_route_table_new(const struct rs_routes *routes, struct rs_rules *const *rules,
                   unsigned (*lane_of)(const char *app, const char *name, void *arg), void *arg)
{
    struct rs_route_table *t = rs_alloc(sizeof(*t));
    struct rs_buf key = {0};

    t->refs = 1;
    t->populated = routes->populated;
    t->draining = routes->draining;
    t->json = routes_json(routes);
    t->none = (struct rs_route){.app = rs_strdup(""), .prefix = rs_strdup(""), .table = t};
    t->routes = rs_alloc(routes->n_apps * sizeof(*t->routes));
    t->n_routes = routes->n_apps;
    for (size_t i = 0; i < routes->n_apps; i++) {
        const struct rs_route_app *a = &routes->apps[i];

        t->routes[i] =
            (struct rs_route){.app = rs_strdup(a->name),
                              .prefix = rs_strdup(a->prefix),
                              .ingress = rs_strdup(a->graph ? RS_GRAPH_NAME : a->ingress),
                              .prefix_len = a->prefix ? strlen(a->prefix) : 0,
                              .rules = rules ? rs_rules_ref(rules[i]) : NULL,
                              .table = t};
    }
    if (t->n_routes)
        qsort(t->routes, t->n_routes, sizeof(*t->routes), by_length);
    for (size_t i = 0; i < routes->n_deployments; i++) {
        const struct rs_route_deployment *d = &routes->deployments[i];
        struct rs_route_target *target = rs_alloc(sizeof(*target));

        *target = (struct rs_route_target){.app = rs_strdup(d->app),
                                           .deployment = rs_strdup(d->name),
                                           .lane = lane_of(d->app, d->name, arg),
                                           .backpressure_status = d->backpressure_status,
                                           .retry_after_s = d->retry_after_s,
                                           .request_timeout = d->request_timeout,
                                           .by_value = d->by_value};
        target = rs_map_put(&t->targets, rs_route_key(&key, d->app, d->name), target);
        assert(!target);
    }
    for (size_t i = 0; i < routes->n_apps; i++) {
        const struct rs_route_app *a = &routes->apps[i];

        if (a->graph)
            put_graph(t, &key, a->name, lane_of(a->name, RS_GRAPH_NAME, arg));
    }
    rs_buf_fini(&key);
    return t;
}

struct rs_route_table *rs_route_table_ref(struct rs_route_table *t)
{
    t->refs++;
    return t;
}

void rs_route_table_unref(struct rs_route_table *t)
{
    if (!t || --t->refs)
        return;
    for (size_t i = 0; i < t->n_routes; i++)
        fini_route(t, &t->routes[i]);
    fini_route(t, &t->none);
    free(t->routes);
    for (size_t i = 0; i < rs_map_slots(&t->targets); i++) {
        struct rs_route_target *target = rs_map_at(&t->targets, i, NULL);

        if (!target)
            continue;
        free(target->app);
        free(target->deployment);
        free(target);
    }
    rs_map_fini(&t->targets);
    free(t->json);
    free(t);
}

static bool matches(const struct rs_route *r, const char *path, size_t len)
{
    size_t n = r->prefix_len;

    if (!r->prefix)
        return false;
    if (n <= 1) /* "/" */
        return true;
    if (len < n || memcmp(path, r->prefix, n) != 0)
        return false;
    return len == n || r->prefix[n - 1] == '/' || path[n] == '/';
}

struct rs_route *rs_route_match(struct rs_route_table *t, const char *path, size_t len)
{
    for (size_t i = 0; i < t->n_routes; i++) {
        if (matches(&t->routes[i], path, len))
            return &t->routes[i];
    }
    return NULL;
}

const struct rs_route_policy *rs_route_policy(const struct rs_route *r, const char *path,
                                              size_t len, const char *method)
{
    size_t skip = r->prefix_len > 1 ? r->prefix_len : 0;

    if (!r->rules)
        return &rs_route_policy_default;
    return rs_app_policy_find(r->rules->policy, path + skip, len - skip, method);
}

struct rs_route *rs_route_app(struct rs_route_table *t, const char *app)
{
    for (size_t i = 0; i < t->n_routes; i++) {
        if (strcmp(t->routes[i].app, app) == 0)
            return &t->routes[i];
    }
    return NULL;
}

struct rs_route_target *rs_route_target(struct rs_route_table *t, const char *app,
                                        const char *deployment)
{
    struct rs_buf key = {0};
    struct rs_route_target *target = rs_map_get(&t->targets, rs_route_key(&key, app, deployment));

    rs_buf_fini(&key);
    return target;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

size_t rs_route_decode(const char *in, size_t len, char *out)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        int high = i + 2 < len && in[i] == '%' ? hex(in[i + 1]) : -1;
        int low = high >= 0 ? hex(in[i + 2]) : -1;

        if (low >= 0) {
            out[n++] = (char)(high << 4 | low);
            i += 2;
        } else {
            out[n++] = in[i];
        }
    }
    return n;
}
