#include "core/graph/graph.h"

#include "core/base/alloc.h"
#include "core/base/map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void rs_graph_free(struct rs_graph *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->count; i++) {
        free(g->nodes[i].name);
        free(g->nodes[i].object);
        free(g->nodes[i].calls);
        json_decref(g->nodes[i].options);
    }
    rs_plan_free(g->plan);
    free(g->nodes);
    free(g->app);
    free(g->docs_path);
    free(g);
}

/* --- building ------------------------------------------------------------------------------------ */

struct builder {
    struct rs_graph *g;
    struct rs_map index; /* name -> place in nodes + 1 */
    size_t cap;
    struct rs_error *err;
};

static size_t place_of(const struct builder *b, const char *name)
{
    return (size_t)(uintptr_t)rs_map_get(&b->index, name);
}

static struct rs_graph_node *add_node(struct builder *b, const char *name)
{
    struct rs_graph *g = b->g;

    if (g->count == RS_GRAPH_MAX) {
        rs_error_set(b->err, RS_INVALID, "an application has at most %d deployments", RS_GRAPH_MAX);
        return NULL;
    }
    if (!name || !*name) {
        rs_error_set(b->err, RS_INVALID, "a deployment has no name");
        return NULL;
    }
    if (place_of(b, name)) {
        rs_error_set(b->err, RS_INVALID, "two deployments are named '%.60s'", name);
        return NULL;
    }
    g->nodes = rs_grow(g->nodes, &b->cap, g->count + 1, sizeof(*g->nodes));
    g->nodes[g->count] = (struct rs_graph_node){.name = rs_strdup(name)};
    rs_map_put(&b->index, name, (void *)(uintptr_t)++g->count);
    return &g->nodes[g->count - 1];
}

static int add_described(struct builder *b, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *d = json_array_get(list, i);
        struct rs_graph_node *n = add_node(b, rs_json_str(d, "name", NULL));

        if (!n)
            return -1;
        n->asgi = rs_json_bool(d, "asgi", false);
        n->function = rs_json_bool(d, "function", false);
        n->object = rs_strdup(rs_json_str(d, "object", NULL));
        n->options = json_deep_copy(json_object_get(d, "options"));
        if (!n->options)
            n->options = json_object();
    }
    return 0;
}

/* Entries of the file that are deployments of their own; none may take a name that the code has. */
static int add_declared(struct builder *b, const struct rs_config_app *app)
{
    for (size_t i = 0; i < app->deployment_count; i++) {
        const struct rs_config_deployment *d = &app->deployments[i];
        struct rs_graph_node *n;

        if (d->kind == RS_KIND_PYTHON)
            continue;
        if (place_of(b, d->name))
            return rs_error_set(b->err, RS_INVALID,
                                "deployment '%.60s' is of kind %s in the file, and a class or "
                                "function in the code; give it another name",
                                d->name, rs_deployment_kind_name(d->kind));
        n = add_node(b, d->name);
        if (!n)
            return -1;
        n->kind = d->kind;
        n->from_file = true;
    }
    return 0;
}

static int add_calls(struct builder *b, struct rs_graph_node *n, const json_t *calls)
{
    size_t size = json_array_size(calls);

    free(n->calls);
    n->call_count = 0;
    n->calls = rs_alloc(size * sizeof(*n->calls));
    for (size_t i = 0; i < size; i++) {
        const char *name = json_string_value(json_array_get(calls, i));
        size_t to = name ? place_of(b, name) : 0;
        bool again = false;

        if (!to)
            return rs_error_set(b->err, RS_INVALID,
                                "deployment '%.60s' calls '%.60s', which does not exist", n->name,
                                name ? name : "?");
        for (size_t k = 0; k < n->call_count && !again; k++)
            again = n->calls[k] == to - 1;
        if (!again)
            n->calls[n->call_count++] = to - 1;
    }
    return 0;
}

static int connect_all(struct builder *b, const struct rs_config_app *app, const json_t *list)
{
    for (size_t i = 0; i < b->g->count; i++) {
        struct rs_graph_node *n = &b->g->nodes[i];
        const struct rs_config_deployment *d = rs_config_app_find(app, n->name);
        const json_t *calls =
            d ? json_object_get(json_object_get(d->options, "rserve"), "calls") : NULL;

        if (!calls && !n->from_file)
            calls = json_object_get(json_array_get(list, i), "calls");
        if (add_calls(b, n, calls) < 0)
            return -1;
    }
    return 0;
}

/* --- validation ---------------------------------------------------------------------------------- */

enum { WHITE, GREY, BLACK };

/* A walk over the graph that does not recurse: a chain may be thousands long. */
struct step {
    size_t node, next; /* next: which callee comes */
};

static int cycle_found(const struct rs_graph *g, const struct step *path, size_t depth, size_t to,
                       struct rs_error *err)
{
    rs_auto(rs_buf_fini) struct rs_buf text = {0};
    size_t from = 0;

    while (path[from].node != to)
        from++;
    for (size_t i = from; i < depth; i++)
        rs_buf_printf(&text, "%s -> ", g->nodes[path[i].node].name);
    return rs_error_set(err, RS_INVALID, "deployments call each other in a circle: %s%s",
                        rs_buf_text(&text), g->nodes[to].name);
}

/* Depth first from `root`. Nodes are finished after their callees: that is the order. */
static int visit(const struct rs_graph *g, size_t root, unsigned char *color, struct step *path,
                 size_t *order, size_t *finished, struct rs_error *err)
{
    size_t depth = 0;

    if (color[root] != WHITE)
        return 0;
    path[depth++] = (struct step){.node = root};
    color[root] = GREY;
    while (depth > 0) {
        struct step *s = &path[depth - 1];
        const struct rs_graph_node *n = &g->nodes[s->node];
        size_t to;

        if (s->next == n->call_count) {
            color[s->node] = BLACK;
            order[(*finished)++] = s->node;
            depth--;
            continue;
        }
        to = n->calls[s->next++];
        if (color[to] == GREY)
            return cycle_found(g, path, depth, to, err);
        if (color[to] == WHITE) {
            color[to] = GREY;
            path[depth++] = (struct step){.node = to};
        }
    }
    return 0;
}

static int order_all(const struct rs_graph *g, size_t *order, struct rs_error *err)
{
    rs_auto(rs_freep) unsigned char *color = rs_alloc(g->count);
    rs_auto(rs_freep) struct step *path = rs_alloc(g->count * sizeof(*path));
    size_t finished = 0;

    for (size_t i = 0; i < g->count; i++) {
        if (visit(g, i, color, path, order, &finished, err) < 0)
            return -1;
    }
    assert(finished == g->count);
    return 0;
}

/* What only code describes must be reachable: it was bound for somebody. A deployment of the file may
 * also be found by name at run time, and its entry in the file is the proof that it is meant. */
static int check_reached(const struct rs_graph *g, struct rs_error *err)
{
    rs_auto(rs_freep) unsigned char *color = rs_alloc(g->count);
    rs_auto(rs_freep) struct step *path = rs_alloc(g->count * sizeof(*path));
    rs_auto(rs_freep) size_t *order = rs_alloc(g->count * sizeof(*order));
    size_t finished = 0;

    if (visit(g, g->ingress, color, path, order, &finished, err) < 0)
        return -1;
    for (size_t i = 0; i < g->count; i++) {
        if (g->nodes[i].from_file && visit(g, i, color, path, order, &finished, err) < 0)
            return -1;
    }
    for (size_t i = 0; i < g->count; i++) {
        if (color[i] == WHITE)
            return rs_error_set(err, RS_INVALID,
                                "deployment '%.60s' is not reached from the ingress '%.60s'",
                                g->nodes[i].name, g->nodes[g->ingress].name);
    }
    return 0;
}

static int validate(struct rs_graph *g, struct rs_error *err)
{
    rs_auto(rs_freep) size_t *order = rs_alloc(g->count * sizeof(*order));

    return order_all(g, order, err) < 0 ? -1 : check_reached(g, err);
}

static int find_ingress(struct builder *b, const struct rs_config_app *app, const json_t *described)
{
    const char *name = described ? rs_json_str(described, "ingress", NULL) : app->ingress;
    size_t at = name ? place_of(b, name) : 0;

    if (!at)
        return rs_error_set(b->err, RS_INVALID, "the ingress '%.60s' is not among the deployments",
                            name ? name : "?");
    b->g->ingress = at - 1;
    return 0;
}

/* The steps of a declared graph call deployments that there are. The first one stands for the graph
 * where an ingress is asked for and the code has none. */
static int add_plan(struct builder *b, const struct rs_config_app *app, const json_t *described)
{
    struct rs_graph *g = b->g;
    size_t first = 0;

    if (!app->graph)
        return 0;
    if (rs_plan_new(&g->plan, app->graph, b->err) < 0)
        return -1;
    for (unsigned i = 0; i < g->plan->count; i++) {
        const struct rs_step *s = g->plan->steps[i];
        size_t to = s->kind == RS_STEP_CALL ? place_of(b, s->deployment) : 1;

        if (!to)
            return rs_error_set(b->err, RS_INVALID,
                                "rserve.graph: stage '%.60s' calls deployment '%.60s', which does "
                                "not exist",
                                s->name, s->deployment);
        if (s->kind == RS_STEP_CALL && !first)
            first = to;
    }
    if (!described && first)
        g->ingress = first - 1;
    return 0;
}

static int check_names(const struct rs_graph *g, const struct rs_config_app *app,
                       struct rs_error *err)
{
    rs_auto(rs_freep) const char **names = rs_alloc(g->count * sizeof(*names));
    size_t n = 0;

    for (size_t i = 0; i < g->count; i++) {
        if (!g->nodes[i].from_file)
            names[n++] = g->nodes[i].name;
    }
    return rs_config_app_check_names(app, names, n, err);
}

int rs_graph_build(struct rs_graph **ret, const struct rs_config_app *app, const json_t *described,
                   struct rs_error *err)
{
    rs_auto(rs_graph_freep) struct rs_graph *g = rs_alloc(sizeof(*g));
    struct builder b = {.g = g, .err = err};
    const json_t *list = json_object_get(described, "deployments");
    int r = -1;

    g->app = rs_strdup(app->name);
    g->docs_path = rs_strdup(rs_json_str(described, "docs_path", NULL));
    if (add_described(&b, list) == 0 && add_declared(&b, app) == 0 &&
        check_names(g, app, err) == 0 && connect_all(&b, app, list) == 0 &&
        find_ingress(&b, app, described) == 0 && add_plan(&b, app, described) == 0)
        r = validate(g, err);
    rs_map_fini(&b.index);
    if (r < 0)
        return -1;
    *ret = rs_steal(g);
    return 0;
}

/* --- questions ----------------------------------------------------------------------------------- */

const struct rs_graph_node *rs_graph_find(const struct rs_graph *g, const char *name)
{
    for (size_t i = 0; i < g->count; i++) {
        if (strcmp(g->nodes[i].name, name) == 0)
            return &g->nodes[i];
    }
    return NULL;
}

void rs_graph_order(const struct rs_graph *g, size_t *order)
{
    int r = order_all(g, order, NULL);

    assert(r == 0); /* rs_graph_build refused cycles */
    (void)r;
}

bool rs_graph_unreached(const struct rs_graph *g, size_t node)
{
    if (node == g->ingress)
        return false;
    for (unsigned i = 0; g->plan && i < g->plan->count; i++) {
        const char *name = g->plan->steps[i]->deployment;

        if (name && strcmp(name, g->nodes[node].name) == 0)
            return false;
    }
    for (size_t i = 0; i < g->count; i++) {
        for (size_t k = 0; k < g->nodes[i].call_count; k++) {
            if (g->nodes[i].calls[k] == node)
                return false;
        }
    }
    return true;
}

json_t *rs_graph_json(const struct rs_graph *g)
{
    json_t *nodes = json_object();

    for (size_t i = 0; i < g->count; i++) {
        const struct rs_graph_node *n = &g->nodes[i];
        json_t *out = json_array();

        for (size_t k = 0; k < n->call_count; k++)
            json_array_append_new(out, json_pack("{s:s, s:s}", "name", g->nodes[n->calls[k]].name,
                                                 "app_name", g->app));
        json_object_set_new(nodes, n->name,
                            json_pack("{s:s, s:s, s:o, s:b}", "name", n->name, "app_name", g->app,
                                      "outbound_deployments", out, "is_ingress", i == g->ingress));
    }
    return json_pack("{s:s, s:o, s:s}", "app_name", g->app, "nodes", nodes, "ingress_deployment",
                     g->count ? g->nodes[g->ingress].name : "");
}
