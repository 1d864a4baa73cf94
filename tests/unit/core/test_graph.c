#include "core/graph/graph.h"
#include "tests/unit/check_main.h"

#include "core/base/alloc.h"

#include <stdio.h>
#include <string.h>

static struct rs_config *config_of(const char *app)
{
    rs_auto(rs_freep) char *text = rs_asprintf("applications: [{name: x%s}]", app);
    struct rs_config *c = NULL;
    struct rs_diags diags = {0};
    int r = rs_config_parse(&c, text, strlen(text), NULL, &diags);

    ck_assert_msg(r == 0, "%s: %s", text, diags.count ? diags.items[0].text : "");
    rs_diags_fini(&diags);
    return c;
}

/* "a>b,c b>c c" as a GRAPH message whose ingress is the first. */
static json_t *described(const char *edges)
{
    json_t *list = json_array();
    rs_auto(rs_freep) char *copy = rs_strdup(edges);
    char *rest = NULL, *inner = NULL;
    json_t *msg = NULL;

    for (char *node = strtok_r(copy, " ", &rest); node; node = strtok_r(NULL, " ", &rest)) {
        char *arrow = strchr(node, '>');
        json_t *calls = json_array(), *d;

        if (arrow)
            *arrow = '\0';
        for (char *to = arrow ? strtok_r(arrow + 1, ",", &inner) : NULL; to;
             to = strtok_r(NULL, ",", &inner))
            json_array_append_new(calls, json_string(to));
        d = json_pack("{s:s, s:o, s:{}, s:s}", "name", node, "calls", calls, "options", "object",
                      "m.C");
        ck_assert_ptr_nonnull(d);
        json_array_append_new(list, d);
    }
    msg = json_pack("{s:o, s:s?}", "deployments", list, "ingress",
                    rs_json_str(json_array_get(list, 0), "name", NULL));
    ck_assert_ptr_nonnull(msg);
    return msg;
}

static struct rs_graph *build(const char *app, const char *edges, struct rs_error *err)
{
    rs_auto(rs_config_freep) struct rs_config *c = config_of(app);
    rs_auto(rs_json_decrefp) json_t *msg = edges ? described(edges) : NULL;
    struct rs_graph *g = NULL;
    int r = rs_graph_build(&g, &c->apps[0], msg, err);

    ck_assert_int_eq(r, g ? 0 : -1);
    return g; /* it outlives config and message */
}

#define PY ", import_path: 'm:a'"
#define EXEC(name, calls) "{name: " name ", rserve: {kind: exec, command: ./x, calls: [" calls "]}}"

static struct rs_graph *good(const char *app, const char *edges)
{
    struct rs_error err = {0};
    struct rs_graph *g = build(app, edges, &err);

    ck_assert_msg(g != NULL, "%s", err.msg);
    return g;
}

/* --- building and order -------------------------------------------------------------------------- */

static const struct {
    const char *app, *edges, *order, *tree;
} goods[] = {
    {PY, "a", "a", "a\n"},
    {PY, "a>b b", "b a", "a\n└─ b\n"},
    {PY, "rag>norm,retr,gen norm retr>norm gen", "norm retr gen rag",
     "rag\n├─ norm\n├─ retr\n│  └─ norm  (above)\n└─ gen\n"},
    {PY, "a>b,c b>d c>d d", "d b c a", "a\n├─ b\n│  └─ d\n└─ c\n   └─ d  (above)\n"},
    {PY, "a>b,b b", "b a", "a\n└─ b\n"},
    {", deployments: [" EXEC("web", "db") ", " EXEC("db", "") "]", NULL, "db web", "web\n└─ db\n"},
    {", rserve: {ingress: two}, deployments: [" EXEC("one", "") ", " EXEC("two", "one") "]", NULL,
     "one two", "two\n└─ one\n"},
    {PY ", deployments: [" EXEC("tool", "") "]", "a>b b", "b a tool", "a\n└─ b\ntool\n"},
    {PY ", deployments: [" EXEC("tool", "b") ", {name: a, rserve: {calls: [b, tool]}}]", "a>b b",
     "b tool a", "a\n├─ b\n└─ tool\n   └─ b  (above)\n"},
};

START_TEST(builds)
{
    rs_auto(rs_graph_freep) struct rs_graph *g = good(goods[_i].app, goods[_i].edges);
    rs_auto(rs_freep) size_t *order = rs_alloc(g->count * sizeof(*order));
    rs_auto(rs_buf_fini) struct rs_buf names = {0}, tree = {0};

    rs_graph_order(g, order);
    for (size_t i = 0; i < g->count; i++)
        rs_buf_printf(&names, "%s%s", i ? " " : "", g->nodes[order[i]].name);
    ck_assert_str_eq(rs_buf_text(&names), goods[_i].order);
    rs_graph_print(g, &tree, NULL, NULL);
    ck_assert_str_eq(rs_buf_text(&tree), goods[_i].tree);
}
END_TEST

static const struct {
    const char *app, *edges, *why;
} bads[] = {
    {PY, "a>b", "deployment 'a' calls 'b', which does not exist"},
    {PY, "a>b b>c c>b", "deployments call each other in a circle: b -> c -> b"},
    {PY, "a>a", "deployments call each other in a circle: a -> a"},
    {PY, "a a", "two deployments are named 'a'"},
    {PY, "a>b b c", "deployment 'c' is not reached from the ingress 'a'"},
    {PY, "a>b b c>d d>c", "deployments call each other in a circle: c -> d -> c"},
    {PY, "", "the ingress '?' is not among the deployments"},
    {PY ", deployments: [{name: Nope}]", "a>b b",
     "ValueError: Deployment 'Nope' does not exist. Available: ['a', 'b']"},
    {PY ", deployments: [" EXEC("a", "") "]", "a",
     "deployment 'a' is of kind exec in the file, and a class or function in the code; give it "
     "another name"},
    {", deployments: [" EXEC("a", "b") "]", NULL, "deployment 'a' calls 'b', which does not exist"},
    {", deployments: [" EXEC("a", "b") ", " EXEC("b", "a") "]", NULL,
     "deployments call each other in a circle: a -> b -> a"},
};

START_TEST(refuses)
{
    struct rs_error err = {0};

    ck_assert_ptr_null(build(bads[_i].app, bads[_i].edges, &err));
    ck_assert_str_eq(err.msg, bads[_i].why);
}
END_TEST

/* What a zygote that has gone wrong may send. */
static const char *const odd[] = {
    "{}",
    "[]",
    "{\"ingress\": \"a\", \"deployments\": 3}",
    "{\"ingress\": \"a\", \"deployments\": [1, null]}",
    "{\"ingress\": \"a\", \"deployments\": [{\"name\": \"a\", \"calls\": [1]}]}",
    "{\"ingress\": 5, \"deployments\": [{\"name\": \"a\"}]}",
    "{\"ingress\": \"a\", \"deployments\": [{\"name\": \"\"}]}",
};

START_TEST(odd_messages)
{
    rs_auto(rs_config_freep) struct rs_config *c = config_of(PY);
    rs_auto(rs_json_decrefp) json_t *msg = json_loads(odd[_i], 0, NULL);
    struct rs_graph *g = NULL;
    struct rs_error err = {0};

    ck_assert_int_eq(rs_graph_build(&g, &c->apps[0], msg, &err), -1);
    ck_assert_str_ne(err.msg, "");
}
END_TEST

START_TEST(takes_over)
{
    static const char text[] =
        "{\"ingress\": \"a\", \"docs_path\": \"/docs\", \"deployments\": [{\"name\": \"a\","
        " \"options\": {\"num_replicas\": 2}, \"asgi\": true, \"function\": true,"
        " \"object\": \"m.f\"}]}";
    rs_auto(rs_config_freep) struct rs_config *c =
        config_of(PY ", deployments: [" EXEC("tool", "") "]");
    rs_auto(rs_json_decrefp) json_t *msg = json_loads(text, 0, NULL);
    rs_auto(rs_graph_freep) struct rs_graph *g = NULL;
    const struct rs_graph_node *a, *tool;

    ck_assert_int_eq(rs_graph_build(&g, &c->apps[0], msg, NULL), 0);
    a = rs_graph_find(g, "a");
    tool = rs_graph_find(g, "tool");
    ck_assert_str_eq(g->app, "x");
    ck_assert_str_eq(g->docs_path, "/docs");
    ck_assert(a->asgi && a->function && !a->from_file);
    ck_assert_str_eq(a->object, "m.f");
    ck_assert_int_eq(rs_json_int(a->options, "num_replicas", 0), 2);
    ck_assert(tool->from_file && tool->kind == RS_KIND_EXEC && !tool->options);
    ck_assert(!rs_graph_unreached(g, 0));
    ck_assert(rs_graph_unreached(g, 1));
    ck_assert_ptr_null(rs_graph_find(g, "b"));
}
END_TEST

/* A chain as long as an application may be: nothing recurses over it. */
START_TEST(long_chain)
{
    json_t *list = json_array();
    rs_auto(rs_json_decrefp) json_t *msg =
        json_pack("{s:o, s:s}", "deployments", list, "ingress", "d0");
    rs_auto(rs_config_freep) struct rs_config *c = config_of(PY);
    rs_auto(rs_graph_freep) struct rs_graph *g = NULL, *more = NULL;
    rs_auto(rs_freep) size_t *order = rs_alloc(RS_GRAPH_MAX * sizeof(*order));
    rs_auto(rs_buf_fini) struct rs_buf tree = {0};
    struct rs_error err = {0};

    for (int i = 0; i < RS_GRAPH_MAX; i++) {
        char name[16], next[16];

        snprintf(name, sizeof(name), "d%d", i);
        snprintf(next, sizeof(next), "d%d", i + 1);
        json_array_append_new(list, i + 1 < RS_GRAPH_MAX
                                        ? json_pack("{s:s, s:[s]}", "name", name, "calls", next)
                                        : json_pack("{s:s}", "name", name));
    }
    ck_assert_int_eq(rs_graph_build(&g, &c->apps[0], msg, &err), 0);
    rs_graph_order(g, order);
    ck_assert_uint_eq(order[0], RS_GRAPH_MAX - 1);
    ck_assert_uint_eq(order[RS_GRAPH_MAX - 1], 0);
    rs_graph_print(g, &tree, NULL, NULL);
    json_array_append_new(list, json_pack("{s:s}", "name", "one more"));
    ck_assert_int_eq(rs_graph_build(&more, &c->apps[0], msg, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.msg, "at most 10000"));
}
END_TEST

/* --- diff ---------------------------------------------------------------------------------------- */

static const struct {
    const char *a_app, *a, *b_app, *b, *want;
} diffs[] = {
    {PY, "a>b b", PY, "a>b b", ""},
    {PY, "a>b b", PY, "a", "~a(calls) -b "},
    {PY, "a", PY, "a>b b", "~a(calls) +b "},
    {PY, "a>b,c b c", PY, "a>c,b b c", "~a(calls) "},
    {PY, "a>b b", PY, "b>a a", "~b(calls, ingress) ~a(calls, ingress) "},
    {PY, "a", ", deployments: [" EXEC("a", "") "]", NULL, "~a(kind, object) "},
    {NULL, NULL, PY, "a>b b", "+a +b "},
    {PY, "a", NULL, NULL, "-a "},
};

START_TEST(diff)
{
    rs_auto(rs_graph_freep) struct rs_graph *a = NULL, *b = NULL;
    rs_auto(rs_buf_fini) struct rs_buf got = {0};
    struct rs_graph_diff d;

    if (diffs[_i].a_app)
        a = good(diffs[_i].a_app, diffs[_i].a);
    if (diffs[_i].b_app)
        b = good(diffs[_i].b_app, diffs[_i].b);
    rs_graph_diff(a, b, &d);
    for (size_t i = 0; i < d.count; i++) {
        const struct rs_graph_change *c = &d.items[i];

        rs_buf_printf(&got, "%c%s", "+-~"[c->kind], c -> name);
        rs_buf_printf(&got, c->fields ? "(%s) " : " ", c->fields);
    }
    ck_assert_str_eq(rs_buf_text(&got), diffs[_i].want);
    rs_graph_diff_fini(&d);
}
END_TEST

START_TEST(diff_of_options)
{
    rs_auto(rs_graph_freep) struct rs_graph *a = good(PY, "a"), *b = good(PY, "a");
    struct rs_graph_diff d;

    json_object_set_new(a->nodes[0].options, "gone", json_true());
    json_object_set_new(a->nodes[0].options, "same", json_integer(1));
    json_object_set_new(b->nodes[0].options, "same", json_integer(1));
    json_object_set_new(b->nodes[0].options, "num_replicas", json_integer(2));
    rs_graph_diff(a, b, &d);
    ck_assert_uint_eq(d.count, 1);
    ck_assert_str_eq(d.items[0].fields, "num_replicas, gone");
    rs_graph_diff_fini(&d);
}
END_TEST

/* --- output -------------------------------------------------------------------------------------- */

static void note(const struct rs_graph_node *n, struct rs_buf *out, void *arg)
{
    rs_buf_printf(out, "  [%s %s]", rs_deployment_kind_name(n->kind), (const char *)arg);
}

START_TEST(print_with_notes)
{
    rs_auto(rs_graph_freep) struct rs_graph *g =
        good(PY ", deployments: [" EXEC("t", "") ", {name: a, rserve: {calls: [b, t]}}]", "a>b b");
    rs_auto(rs_buf_fini) struct rs_buf tree = {0};
    static char arg[] = "!";

    rs_graph_print(g, &tree, note, arg);
    ck_assert_str_eq(rs_buf_text(&tree), "a  [python !]\n├─ b  [python !]\n└─ t  [exec !]\n");
}
END_TEST

START_TEST(topology)
{
    rs_auto(rs_graph_freep) struct rs_graph *g = good(PY, "Outer>Inner Inner");
    rs_auto(rs_json_decrefp) json_t *got = rs_graph_json(g);
    rs_auto(rs_json_decrefp) json_t *want =
        json_loads("{\"app_name\": \"x\", \"ingress_deployment\": \"Outer\", \"nodes\": {"
                   "\"Outer\": {\"name\": \"Outer\", \"app_name\": \"x\", \"is_ingress\": true,"
                   " \"outbound_deployments\": [{\"name\": \"Inner\", \"app_name\": \"x\"}]},"
                   "\"Inner\": {\"name\": \"Inner\", \"app_name\": \"x\", \"is_ingress\": false,"
                   " \"outbound_deployments\": []}}}",
                   0, NULL);

    ck_assert(json_equal(got, want));
}
END_TEST

RS_CHECK_MAIN("graph", tcase_add_loop_test(tc, builds, 0, RS_COUNT(goods));
              tcase_add_loop_test(tc, refuses, 0, RS_COUNT(bads));
              tcase_add_loop_test(tc, odd_messages, 0, RS_COUNT(odd));
              tcase_add_test(tc, takes_over); tcase_add_test(tc, long_chain);
              tcase_add_loop_test(tc, diff, 0, RS_COUNT(diffs));
              tcase_add_test(tc, diff_of_options); tcase_add_test(tc, print_with_notes);
              tcase_add_test(tc, topology);)
