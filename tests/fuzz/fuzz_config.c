/* A configuration as anybody may PUT it, and all that is done with it: parsing, merging, graph, JSON.
 * A second document after a line "%%" stands for what the code says: a GRAPH message.
 */
#include "core/base/json.h"
#include "core/config/deployment.h"
#include "core/config/emit.h"
#include "core/graph/graph.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every message is one line that names its place. */
static void diags(const struct rs_diags *d)
{
    rs_auto(rs_buf_fini) struct rs_buf text = {0};
    size_t lines = 0;

    rs_diags_print(&text, d);
    for (const char *p = rs_buf_text(&text); *p; p++)
        lines += *p == '\n';
    assert(lines == d->count + (d->dropped > 0));
    assert(d->errors >= d->deploy_errors);
}

/* What a node makes of the JSON is what the head had. */
static void conf(const struct rs_deployment_conf *c)
{
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *again = NULL;
    rs_auto(rs_json_decrefp) json_t *shown = rs_deployment_conf_json(c);
    struct rs_error err = {0};
    int r = rs_deployment_conf_from_json(&again, c->json, &err);

    assert(r == 0 && json_is_object(shown));
    assert(rs_deployment_conf_diff(c, again, NULL) == RS_RELOAD_NONE);
    assert(rs_deployment_conf_heavy_hash(c) == rs_deployment_conf_heavy_hash(again));
    assert(c->num_replicas >= 0 && c->max_ongoing_requests > 0);
    assert(rs_resources_equal(&c->resources, &again->resources));
    assert((c->kind == RS_KIND_PYTHON) || c->command[0]);
}

static void graph(const struct rs_config *c, const struct rs_config_app *app, const json_t *code)
{
    rs_auto(rs_graph_freep) struct rs_graph *g = NULL;
    rs_auto(rs_json_decrefp) json_t *topology = NULL;
    rs_auto(rs_buf_fini) struct rs_buf tree = {0};
    struct rs_graph_diff diff;
    struct rs_error err = {0};

    if (rs_graph_build(&g, app, app->import_path ? code : NULL, &err) < 0) {
        assert(err.msg[0]);
        return;
    }
    topology = rs_graph_json(g);
    rs_graph_print(g, &tree, NULL, NULL);
    rs_graph_diff(NULL, g, &diff);
    assert(diff.count == g->count + (g->plan != NULL));
    rs_graph_diff_fini(&diff);
    rs_graph_diff(g, g, &diff);
    assert(diff.count == 0);
    rs_graph_diff_fini(&diff);
    for (size_t i = 0; i < g->count; i++) {
        rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *merged = NULL;
        struct rs_diags d = {0};

        if (rs_deployment_merge(&merged, c, app, g->nodes[i].name, g->nodes[i].options, &d) == 0)
            conf(merged);
        else
            assert(d.errors > 0);
        diags(&d);
        rs_diags_fini(&d);
    }
}

/* What was understood reads the same when it is written out. */
static void again(const struct rs_config *c)
{
    rs_auto(rs_freep) char *text = json_dumps(c->json, 0);
    rs_auto(rs_config_freep) struct rs_config *other = NULL;
    rs_auto(rs_buf_fini) struct rs_buf yaml = {0};
    struct rs_diags d = {0};
    int r = rs_config_parse(&other, text, strlen(text), "again", &d);

    assert(r == 0 && d.errors == 0);
    assert(json_equal(c->json, other->json));
    rs_diags_fini(&d);
    rs_yaml_dump(&yaml, c->json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char mark[] = "\n%%\n";
    const uint8_t *second = memmem(data, size, mark, sizeof(mark) - 1);
    size_t first = second ? (size_t)(second - data) : size;
    rs_auto(rs_json_decrefp) json_t *code = NULL;
    rs_auto(rs_config_freep) struct rs_config *c = NULL;
    struct rs_diags d = {0};
    int r = rs_config_parse(&c, (const char *)data, first, "fuzz.yaml", &d);

    assert((r == 0) == (c != NULL) && (r == 0 || d.errors > 0));
    diags(&d);
    if (c && d.errors == 0)
        again(c);
    rs_diags_fini(&d);
    if (!c)
        return 0;
    if (second)
        code = json_loadb((const char *)second + sizeof(mark) - 1,
                          size - first - (sizeof(mark) - 1), JSON_ALLOW_NUL, NULL);
    for (size_t i = 0; i < c->app_count; i++) {
        json_decref(rs_config_app_echo(&c->apps[i]));
        (void)rs_config_app_code_hash(&c->apps[i]);
        if (!c->apps[i].failure)
            graph(c, &c->apps[i], code);
    }
    return 0;
}
