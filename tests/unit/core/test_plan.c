#include "core/graph/plan.h"
#include "tests/unit/check_main.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/config/config.h"
#include "core/graph/graph.h"

#include <string.h>

static const struct {
    const char *graph, *tree;
} pictures[] = {
    {"a", "a\n"},
    {"{call: a, name: x, path: '/p?q', method: POST, retries: 2, timeout_s: 0.5}",
     "x: a  POST /p?q  retries 2  timeout 0.5 s\n"},
    {"{sequence: [a, {parallel: [a, b], merge: mean, field: s, need: 1}], name: all}",
     "sequence all\n├─ a\n└─ parallel  merge mean of s  1 of 2 must succeed\n   ├─ a-2: a\n   └─ "
     "b\n"},
    {"{switch: {header: h, cases: {x: a}, default: b}}",
     "switch  by header h\n├─ x: a\n└─ else: b\n"},
    {"{switch: {json: m.n, cases: {x: a, y: b}}}", "switch  by field m.n\n├─ x: a\n└─ y: b\n"},
    {"{switch: {weight: {a: 9, s: 1}, sticky: u}, steps: {s: {fallback: [b, a], on: [error]}}}",
     "switch  by weight, sticky by header u\n├─ 9: a\n└─ 1: fallback s  on error\n   ├─ b\n   └─ "
     "a-2: a\n"},
    {"{split: a, items: t, cache: {ttl_s: 60, max_bytes: 1048576, headers: [H, I]}, shadow: {to: "
     "b, "
     "share: 0.25}}",
     "split  elements of t, 8 at a time, at most 1000  cache 60 s, 1 MiB, by h i\n├─ a\n└─ shadow "
     "of "
     "25 %, at most 16: b\n"},
    {"{fallback: [a, {answer: {status: 503}}]}",
     "fallback  on error timeout overload\n├─ a\n└─ answer  503\n"},
};

static struct rs_graph *graph_of(const char *graph)
{
    rs_auto(rs_freep) char *text = rs_asprintf(
        "applications: [{rserve: {graph: %s}, deployments: [{name: unused, rserve: "
        "{kind: exec, command: x}}, {name: a, rserve: {kind: exec, command: x}}, {name: "
        "b, rserve: {kind: exec, command: x}}]}]",
        graph);
    rs_auto(rs_config_freep) struct rs_config *c = NULL;
    struct rs_diags diags = {0};
    struct rs_graph *g = NULL;
    struct rs_error err = {0};
    int r = rs_config_parse(&c, text, strlen(text), NULL, &diags);

    ck_assert_msg(r == 0, "%s: %s", graph, diags.count ? diags.items[0].text : "");
    rs_diags_fini(&diags);
    r = rs_graph_build(&g, &c->apps[0], NULL, &err);
    ck_assert_msg(r == 0, "%s", err.msg);
    return g;
}

START_TEST(picture)
{
    rs_auto(rs_graph_freep) struct rs_graph *g = graph_of(pictures[_i].graph);
    rs_auto(rs_buf_fini) struct rs_buf out = {0}, whole = {0};

    rs_plan_print(g->plan, &out);
    ck_assert_str_eq(rs_buf_text(&out), pictures[_i].tree);
    rs_graph_print(g, &whole, NULL, NULL); /* and what nobody asks */
    ck_assert_int_eq(strncmp(rs_buf_text(&whole), pictures[_i].tree, strlen(pictures[_i].tree)), 0);
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&whole), "unused\n"));
    ck_assert_str_ne(g->nodes[g->ingress].name, "unused");
}
END_TEST

START_TEST(changes_are_seen)
{
    rs_auto(rs_graph_freep) struct rs_graph *a = graph_of("a"),
                                            *b = graph_of("{call: a, retries: 1}");
    struct rs_graph_diff diff;

    rs_graph_diff(a, b, &diff);
    ck_assert_uint_eq(diff.count, 1);
    ck_assert_str_eq(diff.items[0].name, "(graph)");
    rs_graph_diff_fini(&diff);
    rs_graph_diff(b, b, &diff);
    ck_assert_uint_eq(diff.count, 0);
    rs_graph_diff_fini(&diff);
}
END_TEST

/* What a node may be told by a head of another version, or by nobody who knows. */
static const char *const strange[] = {
    "{}",
    "{\"root\": 1}",
    "{\"root\": {\"kind\": \"dance\"}}",
    "{\"root\": {\"kind\": \"call\"}}",
    "{\"root\": {\"kind\": \"sequence\", \"sequence\": []}}",
    "{\"root\": {\"kind\": \"sequence\", \"sequence\": [{}]}}",
    "{\"root\": {\"kind\": \"parallel\", \"parallel\": [], \"merge\": \"none\"}}",
    "{\"root\": {\"kind\": \"switch\", \"switch\": {\"weight\": []}}}",
    "{\"root\": {\"kind\": \"switch\", \"switch\": {\"weight\": [{\"weight\": -1, \"to\": {}}]}}}",
    "{\"root\": {\"kind\": \"split\"}}",
    "{\"root\": {\"kind\": \"call\", \"call\": \"a\", \"shadow\": {}}}",
};

START_TEST(strange_plans_are_refused)
{
    rs_auto(rs_json_decrefp) json_t *json = json_loads(strange[_i], 0, NULL);
    rs_auto(rs_plan_freep) struct rs_plan *p = NULL;
    struct rs_error err = {0};
    int r = rs_plan_new(&p, json, &err);

    ck_assert_ptr_nonnull(json);
    ck_assert_msg(r < 0 && err.msg[0], "%s", strange[_i]);
}
END_TEST

RS_CHECK_MAIN("plan", tcase_add_loop_test(tc, picture, 0, RS_COUNT(pictures));
              tcase_add_test(tc, changes_are_seen);
              tcase_add_loop_test(tc, strange_plans_are_refused, 0, RS_COUNT(strange));)
