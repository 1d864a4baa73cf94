/* The tables of the REST API and what is made of them: routes, tags, shapes, the document, figures. */
#include "core/base/json.h"
#include "net/api/internal.h"
#include "net/api/schema.h"
#include "net/api/snapshot.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

/* --- routes --- */

static const struct {
    const char *method, *path;
    const char *route;   /* NULL: none */
    const char *part[2]; /* NULL: no more */
} paths[] = {
    {"GET", "/api", "/api", {NULL}},
    {"GET", "/api/", "/api", {NULL}},
    {"HEAD", "/api/version", "/api/version", {NULL}},
    {"GET", "/api/v1/applications", "/api/v1/applications", {NULL}},
    {"GET", "/api/v1/applications/", "/api/v1/applications", {NULL}},
    {"GET", "/api/v1/applications/a b", "/api/v1/applications/{app}", {"a b"}},
    {"DELETE", "/api/v1/applications/a/", "/api/v1/applications/{app}", {"a"}},
    {"GET", "/api/v1/applications/a/deployments", "/api/v1/applications/{app}/deployments", {"a"}},
    {"GET",
     "/api/v1/applications/a/deployments/d",
     "/api/v1/applications/{app}/deployments/{deployment}",
     {"a", "d"}},
    {"POST",
     "/api/v1/applications/{app}/deployments/{/scale",
     "/api/v1/applications/{app}/deployments/{deployment}/scale",
     {"{app}", "{"}},
    {"POST", "/api/v1/applications/a", NULL, {NULL}},
    {"GET", "/api/v1/applications//", NULL, {NULL}},
    {"GET", "/api/v1/applications//deployments", NULL, {NULL}},
    {"GET", "/api/v1/applications/a//deployments", NULL, {NULL}},
    {"GET", "/api/v1/applications/a/deployments/d/e", NULL, {NULL}},
    {"GET", "/api/v1", NULL, {NULL}},
    {"GET", "", NULL, {NULL}},
    {"GET", "api", NULL, {NULL}},
    {"get", "/api", NULL, {NULL}},
    {"", "/api", NULL, {NULL}},
};

START_TEST(finds_routes)
{
    const struct rs_api_route *r = rs_api_route_find(paths[_i].method, paths[_i].path);
    char *part[RS_API_PARTS] = {NULL};

    if (!paths[_i].route) {
        ck_assert_ptr_null(r);
        return;
    }
    ck_assert_ptr_nonnull(r);
    ck_assert_str_eq(r->path, paths[_i].route);
    rs_api_route_parts(r, paths[_i].path, part);
    for (int i = 0; i < 2; i++) {
        ck_assert_pstr_eq(part[i], paths[_i].part[i]);
        free(part[i]);
    }
}
END_TEST

static unsigned braces(const char *path)
{
    unsigned n = 0;

    for (; *path; path++)
        n += *path == '{';
    return n;
}

/* What the table promises to those who read it. */
START_TEST(rows_are_whole)
{
    for (size_t i = 0; i < rs_api_n_routes; i++) {
        const struct rs_api_route *r = &rs_api_routes[i];
        char allow[RS_WEB_HEADER_LEN];

        ck_assert_msg(r->fn && r->help && *r->help, "%s", r->path);
        ck_assert_ptr_eq(rs_api_route_find(r->method, r->path), r); /* no other one before it */
        ck_assert_uint_le(braces(r->path), RS_API_PARTS);
        ck_assert_msg(r->path[0] == '/' && r->path[strlen(r->path) - 1] != '/', "%s", r->path);
        if (strcmp(r->method, "GET") == 0)
            ck_assert_msg(!r->changes && !r->body, "%s", r->path);
        if (strncmp(r->path, "/api/v1/", 8) == 0)
            ck_assert_msg(r->answer, "%s answers JSON", r->path);
        ck_assert_msg((r->fn == rs_api_v1_view) <= (r->view != NULL), "%s", r->path);
        rs_api_route_allow(r->path, allow, sizeof(allow));
        ck_assert_ptr_nonnull(strstr(allow, r->method));
    }
}
END_TEST

/* --- tags --- */

static const struct {
    const char *header, *etag;
    bool named;
} tags[] = {
    {"*", "\"a\"", true},
    {"*", NULL, false},
    {" * ", "\"a\"", true},
    {"\"a\"", "\"a\"", true},
    {"\"a\"", NULL, false},
    {"\"b\"", "\"a\"", false},
    {"\"b\", \"a\"", "\"a\"", true},
    {"\"b\",\"a\" ,\"c\"", "\"a\"", true},
    {"W/\"a\"", "\"a\"", true},
    {"a", "\"a\"", false},
    {"\"a", "\"a\"", false},
    {"\"aa\"", "\"a\"", false},
    {"", "\"a\"", false},
    {",,, ,", "\"a\"", false},
    {"**", "\"a\"", false},
    {"W/", "\"a\"", false},
};

START_TEST(conditions)
{
    ck_assert_int_eq(rs_api_etag_named(tags[_i].header, tags[_i].etag), tags[_i].named);
}
END_TEST

#define APP(name, more) "{\"name\": \"" name "\"" more "}"
#define DOCUMENT(apps) "{\"document\": {\"applications\": [" apps "]}}"
static const struct {
    const char *one, *two; /* desired */
    const char *app;       /* NULL: as a whole */
    bool same;
} pairs[] = {
    {"{\"config\": null}", "{}", NULL, true},
    {"{\"config\": null}", "{\"config\": " DOCUMENT("") "}", NULL, false},
    {"{\"config\": " DOCUMENT(APP("a", ", \"x\": 1, \"y\": 2")) "}",
     "{\"config\": {\"document\": {\"applications\": [{\"y\": 2, \"x\": 1, \"name\": \"a\"}]}}}",
     NULL, true},
    {"{\"config\": " DOCUMENT(APP("a", "") "," APP("b", "")) "}",
     "{\"config\": " DOCUMENT(APP("b", "") "," APP("a", "")) "}", NULL, false},
    {"{\"config\": " DOCUMENT(APP("a", "") "," APP("b", "")) "}",
     "{\"config\": " DOCUMENT(APP("a", "") "," APP("b", ", \"z\": 1")) "}", "a", true},
    {"{\"config\": " DOCUMENT(APP("a", "")) "}",
     "{\"config\": " DOCUMENT(APP("a", ", \"z\": null")) "}", "a", false},
    {"{\"config\": " DOCUMENT(APP("a", "")) "}",
     "{\"config\": null, \"apps\": {\"a\": " DOCUMENT(APP("a", "")) "}}", "a", true},
    {"{\"config\": " DOCUMENT("{}") "}", "{\"config\": " DOCUMENT(APP("default", "")) "}",
     "default", false},
};

static json_t *parsed(const char *text)
{
    struct rs_error err = {0};
    json_t *j = NULL;

    ck_assert_msg(rs_json_parse(&j, text, strlen(text), "test", &err) == 0, "%s", err.msg);
    return j;
}

START_TEST(tags_of_what_is_desired)
{
    rs_auto(rs_json_decrefp) json_t *one = parsed(pairs[_i].one), *two = parsed(pairs[_i].two);
    char a[RS_ETAG_LEN], b[RS_ETAG_LEN];

    ck_assert(rs_api_etag(one, pairs[_i].app, a) && rs_api_etag(two, pairs[_i].app, b));
    ck_assert_int_eq(strcmp(a, b) == 0, pairs[_i].same);
    ck_assert(a[0] == '"' && a[strlen(a) - 1] == '"');
    ck_assert(!rs_api_etag(one, "nobody", a));
}
END_TEST

/* --- shapes --- */

static const struct {
    const char *schema, *source, *want;
} shapes[] = {
    {"Scale", "{\"target_num_replicas\": 1, \"more\": 2}", "{\"target_num_replicas\":1}"},
    {"Dropped", "{\"queue_full\": 1, \"shed\": 2, \"expired\": 3, \"other\": 4}",
     "{\"queue_full\":1,\"shed\":2,\"expired\":3}"},
    {"NodeReplica", "{}", "{\"replica_id\":null,\"app\":null,\"deployment\":null,\"state\":null}"},
    {"Sample", "{\"name\": \"n\", \"labels\": {\"a\": \"b\"}, \"value\": null}",
     "{\"name\":\"n\",\"labels\":{\"a\":\"b\"},\"value\":null}"},
    {"Events", "{\"whatever\": [1]}", "{\"whatever\":[1]}"},
};

START_TEST(picks)
{
    rs_auto(rs_json_decrefp) json_t *source = parsed(shapes[_i].source);
    rs_auto(rs_json_decrefp) json_t *got = rs_api_project(shapes[_i].schema, source);
    rs_auto(rs_freep) char *text = rs_json_dump(got);

    ck_assert_str_eq(text, shapes[_i].want);
}
END_TEST

static const struct {
    const char *type, *values, *want;
} types[] = {
    {"string", NULL, "{\"type\":\"string\"}"},
    {"string?", NULL, "{\"type\":[\"string\",\"null\"]}"},
    {"string", "A|B", "{\"type\":\"string\",\"enum\":[\"A\",\"B\"]}"},
    {"any", NULL, "{}"},
    {"Replica", NULL, "{\"$ref\":\"#/components/schemas/Replica\"}"},
    {"Replica?", NULL,
     "{\"anyOf\":[{\"$ref\":\"#/components/schemas/Replica\"},{\"type\":\"null\"}]}"},
    {"[integer]", NULL, "{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}"},
    {"{Replica}", NULL,
     "{\"type\":\"object\",\"additionalProperties\":{\"$ref\":\"#/components/schemas/Replica\"}}"},
};

START_TEST(types_as_json_schema)
{
    rs_auto(rs_json_decrefp) json_t *got = rs_api_type_json(types[_i].type, types[_i].values);
    rs_auto(rs_freep) char *text = rs_json_dump(got);

    ck_assert_str_eq(text, types[_i].want);
}
END_TEST

/* Every reference of the document leads somewhere, and every schema is used. */
static void follow(const json_t *document, json_t *j, json_t *seen)
{
    const char *ref = rs_json_str(j, "$ref", NULL), *key;
    json_t *v;
    size_t i;

    if (ref) {
        const char *name = strrchr(ref, '/') + 1;

        ck_assert_msg(rs_api_schema_find(name) != NULL, "%s", ref);
        json_object_set_new(seen, name, json_true());
    }
    json_object_foreach (j, key, v)
        follow(document, v, seen);
    json_array_foreach (j, i, v)
        follow(document, v, seen);
}

START_TEST(the_document)
{
    rs_auto(rs_json_decrefp) json_t *document = rs_api_openapi_json("1.2.3");
    rs_auto(rs_json_decrefp) json_t *seen = json_object();

    ck_assert_ptr_nonnull(document);
    ck_assert_str_eq(rs_json_str(json_object_get(document, "info"), "version", ""), "1.2.3");
    follow(document, document, seen);
    for (size_t i = 0; i < rs_api_n_schemas; i++)
        ck_assert_msg(strcmp(rs_api_schemas[i].name, "Error") == 0 ||
                          json_object_get(seen, rs_api_schemas[i].name),
                      "nothing refers to %s", rs_api_schemas[i].name);
    for (size_t i = 0; i < rs_api_n_routes; i++)
        ck_assert_ptr_nonnull(
            json_object_get(json_object_get(document, "paths"), rs_api_routes[i].path));
}
END_TEST

/* --- figures --- */

#define FAMILY(name, type, help, samples)                                                          \
    "{\"name\":\"" name "\",\"type\":\"" type "\",\"help\":\"" help "\",\"samples\":[" samples "]" \
    "}"
#define SAMPLE(name, labels, value)                                                                \
    "{\"name\":\"" name "\",\"labels\":{" labels "},\"value\":" value "}"
static const struct {
    const char *text, *prefix, *want; /* want NULL: anything, but no crash */
} texts[] = {
    {"", NULL, "[]"},
    {"# HELP a_total what it is\n# TYPE a_total counter\na_total 7.0\n", NULL,
     "[" FAMILY("a_total", "counter", "what it is", SAMPLE("a_total", "", "7.0")) "]"},
    {"# TYPE h histogram\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3.5\nh_count 2\n",
     NULL,
     "[" FAMILY("h", "histogram", "",
                SAMPLE("h_bucket", "\"le\":\"1.0\"", "1.0") "," SAMPLE(
                    "h_bucket", "\"le\":\"+Inf\"",
                    "2.0") "," SAMPLE("h_sum", "", "3.5") "," SAMPLE("h_count", "", "2.0")) "]"},
    {"g{a=\"x\\\"y\\\\n\\n\",b=\"\"} NaN\n", NULL,
     "[" FAMILY("g", "untyped", "",
                SAMPLE("g", "\"a\":\"x\\\"y\\\\n\\n\",\"b\":\"\"", "null")) "]"},
    {"a 1\nb 2\n", "b", "[" FAMILY("b", "untyped", "", SAMPLE("b", "", "2.0")) "]"},
    {"a{\n", NULL, NULL},
    {"a{b=\"c\n", NULL, NULL},
    {"a{b=\"\\", NULL, NULL},
    {"# HELP\n# TYPE \n#\n\n\n a 1\n{} 2\na\na b\n", NULL, NULL},
};

START_TEST(figures)
{
    rs_auto(rs_json_decrefp) json_t *got = rs_api_snapshot(texts[_i].text, texts[_i].prefix);
    rs_auto(rs_freep) char *text = rs_json_dump(got);

    ck_assert(json_is_array(got));
    if (texts[_i].want)
        ck_assert_str_eq(text, texts[_i].want);
}
END_TEST

RS_CHECK_MAIN("api_parts", tcase_add_loop_test(tc, finds_routes, 0, RS_COUNT(paths));
              tcase_add_test(tc, rows_are_whole);
              tcase_add_loop_test(tc, conditions, 0, RS_COUNT(tags));
              tcase_add_loop_test(tc, tags_of_what_is_desired, 0, RS_COUNT(pairs));
              tcase_add_loop_test(tc, picks, 0, RS_COUNT(shapes));
              tcase_add_loop_test(tc, types_as_json_schema, 0, RS_COUNT(types));
              tcase_add_test(tc, the_document);
              tcase_add_loop_test(tc, figures, 0, RS_COUNT(texts));)
