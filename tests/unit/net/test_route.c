#include "net/router/route.h"

#include "net/router/dataplane.h"
#include "tests/unit/check_main.h"

#include <string.h>

static const struct rs_route_app apps[] = {
    {"root", "/", "r"},    {"a", "/a", "x"},       {"ab", "/a/b", "y"},
    {"hidden", NULL, "z"}, {"odd", "/a/{b}", "o"}, {"slash", "/end/", "s"},
};
static const struct rs_route_deployment deployments[] = {
    {.app = "root", .name = "r", .backpressure_status = 429, .retry_after_s = 2.5},
    {.app = "a", .name = "x"},
    {.app = "a", .name = "inner"},
};

static unsigned lane_of(const char *app, const char *name, void *arg)
{
    ck_assert_str_eq(arg, "arg");
    return strcmp(app, "a") == 0 && strcmp(name, "inner") == 0 ? 7 : 1;
}

static struct rs_route_table *table(size_t n_apps)
{
    return rs_route_table_new(&(struct rs_routes){.apps = apps,
                                                  .n_apps = n_apps,
                                                  .deployments = deployments,
                                                  .n_deployments = RS_COUNT(deployments),
                                                  .populated = true},
                              NULL, lane_of, (void *)(uintptr_t) "arg");
}

static const struct {
    const char *path, *app;
} paths[] = {
    {"/", "root"},          {"/a", "a"},        {"/a/", "a"},        {"/a/b", "ab"},
    {"/a/b/c", "ab"},       {"/ab", "root"},    {"/a/bc", "a"},      {"/A", "root"},
    {"/zzz", "root"},       {"", "root"},       {"*", "root"},       {"/a/{b}", "odd"},
    {"/end", "root"},       {"/end/", "slash"}, {"/end/x", "slash"}, {"//a", "root"},
    {"/-/nothing", "root"},
};

START_TEST(longest_prefix)
{
    struct rs_route_table *t = table(RS_COUNT(apps));
    struct rs_route *r = rs_route_match(t, paths[_i].path, strlen(paths[_i].path));

    ck_assert_ptr_nonnull(r);
    ck_assert_str_eq(r->app, paths[_i].app);
    rs_route_table_unref(t);
}
END_TEST

START_TEST(no_application_takes_it)
{
    struct rs_route_table *t =
        rs_route_table_new(&(struct rs_routes){.apps = apps + 1, .n_apps = 3}, NULL, lane_of, NULL);

    ck_assert_ptr_null(rs_route_match(t, "/", 1));
    ck_assert_ptr_null(rs_route_match(t, "/apple", 6));
    ck_assert_str_eq(rs_route_match(t, "/apple", 2)->app, "a"); /* the length counts */
    rs_route_table_unref(t);
}
END_TEST

START_TEST(lookups_and_the_list)
{
    struct rs_route_table *t = table(3);
    const struct rs_route_target *target;

    ck_assert_str_eq(t->json, "{\"/\":\"root\",\"/a\":\"a\",\"/a/b\":\"ab\"}");
    ck_assert_str_eq(rs_route_app(t, "a")->ingress, "x");
    ck_assert_ptr_null(rs_route_app(t, "absent"));
    target = rs_route_target(t, "a", "inner");
    ck_assert_uint_eq(target->lane, 7);
    target = rs_route_target(t, "root", "r");
    ck_assert_int_eq(target->backpressure_status, 429);
    ck_assert(target->retry_after_s == 2.5);
    ck_assert_ptr_null(rs_route_target(t, "root", "x"));
    ck_assert_ptr_null(rs_route_target(t, "roo", "tr"));
    rs_route_table_unref(t);
}
END_TEST

static int dropped;

static void drop(void *cache)
{
    ck_assert_str_eq(cache, "cache");
    dropped++;
}

START_TEST(the_last_owner_frees_it)
{
    struct rs_route_table *t = table(2);

    t->drop_cache = drop;
    t->routes[1].cache = (void *)(uintptr_t) "cache";
    ck_assert_ptr_eq(rs_route_table_ref(t), t);
    rs_route_table_unref(t);
    ck_assert_int_eq(dropped, 0);
    rs_route_table_unref(t);
    ck_assert_int_eq(dropped, 1);
    rs_route_table_unref(NULL);
}
END_TEST

static const struct {
    const char *in, *out;
} escapes[] = {
    {"", ""},       {"/plain", "/plain"},   {"%41%62", "Ab"}, {"a%2Fb", "a/b"},
    {"%", "%"},     {"%4", "%4"},           {"%zz", "%zz"},   {"%4g", "%4g"},
    {"%%41", "%A"}, {"%c3%A9", "\xc3\xa9"}, {"a+b", "a+b"},   {"%25%34%31", "%41"},
};

START_TEST(decodes_escapes)
{
    size_t len = strlen(escapes[_i].in), n;
    char out[64];

    n = rs_route_decode(escapes[_i].in, len, out);
    ck_assert_uint_eq(n, strlen(escapes[_i].out));
    ck_assert_int_eq(memcmp(out, escapes[_i].out, n), 0);
}
END_TEST

RS_CHECK_MAIN("route", tcase_add_loop_test(tc, longest_prefix, 0, RS_COUNT(paths));
              tcase_add_test(tc, no_application_takes_it); tcase_add_test(tc, lookups_and_the_list);
              tcase_add_test(tc, the_last_owner_frees_it);
              tcase_add_loop_test(tc, decodes_escapes, 0, RS_COUNT(escapes));)
