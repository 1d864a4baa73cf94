#include "core/config/config.h"
#include "tests/unit/check_main.h"

#include "core/base/alloc.h"
#include "core/config/fields.h"
#include "core/config/schema.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

/* --- files: testdata/config/ok and bad ----------------------------------------------------------- */

static char *data_path(const char *folder, const char *name)
{
    return rs_asprintf("%s/testdata/config/%s/%s", getenv("RSERVE_SOURCE"), folder, name);
}

static void slurp(const char *path, struct rs_buf *out)
{
    FILE *f = fopen(path, "re");
    size_t n;

    ck_assert_msg(f != NULL, "%s cannot be read", path);
    do {
        n = fread(rs_buf_reserve(out, 4096), 1, 4096, f);
        rs_buf_commit(out, n);
    } while (n > 0);
    fclose(f);
}

/* Deploy-time errors do not refuse the document. */
static const char *const only_deploy_time[] = {"deploy-time.yaml", "route-prefix.yaml",
                                               "runtime-env.yaml"};

static bool is_document(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".json") == 0);
}

/* What parsing `name` says, and for a good one its JSON, must be in the file beside it. */
static void check_file(const char *folder, const char *name, const char *suffix)
{
    rs_auto(rs_freep) char *path = data_path(folder, name);
    rs_auto(rs_freep) char *stem = rs_strndup(name, (size_t)(strrchr(name, '.') - name));
    rs_auto(rs_freep) char *beside = rs_asprintf("%s%s", stem, suffix);
    rs_auto(rs_freep) char *expected_path = data_path(folder, beside);
    rs_auto(rs_buf_fini) struct rs_buf text = {0}, expected = {0}, got = {0};
    rs_auto(rs_config_freep) struct rs_config *c = NULL;
    struct rs_diags diags = {0};
    bool ok = strcmp(folder, "ok") == 0;
    int r;

    slurp(path, &text);
    slurp(expected_path, &expected);
    r = rs_config_parse(&c, rs_buf_text(&text), rs_buf_len(&text), name, &diags);
    rs_diags_print(&got, &diags);
    if (ok && c) {
        rs_auto(rs_freep) char *json =
            json_dumps(c->json, JSON_INDENT(1) | JSON_REAL_PRECISION(15));

        rs_buf_printf(&got, "%s\n", json);
    }
    for (size_t i = 0; i < RS_COUNT(only_deploy_time); i++)
        ok = ok || strcmp(name, only_deploy_time[i]) == 0;
    ck_assert_msg(strcmp(rs_buf_text(&got), rs_buf_text(&expected)) == 0,
                  "%s: expected\n%s\ngot\n%s", name, rs_buf_text(&expected), rs_buf_text(&got));
    ck_assert_msg((r == 0) == ok, "%s: parsing returned %d", name, r);
    ck_assert((r == 0) == (rs_diags_schema_errors(&diags) == 0));
    rs_diags_fini(&diags);
}

static size_t check_folder(const char *folder, const char *suffix)
{
    rs_auto(rs_freep) char *path = data_path(folder, "");
    DIR *dir = opendir(path);
    const struct dirent *e;
    size_t n = 0;

    ck_assert_msg(dir != NULL, "%s cannot be read", path);
    while ((e = readdir(dir))) {
        if (is_document(e->d_name)) {
            check_file(folder, e->d_name, suffix);
            n++;
        }
    }
    closedir(dir);
    return n;
}

START_TEST(files_ok)
{
    ck_assert_uint_ge(check_folder("ok", ".out"), 9);
}
END_TEST

START_TEST(files_bad)
{
    ck_assert_uint_ge(check_folder("bad", ".err"), 32);
}
END_TEST

/* Every key of every table is written in ok/full.yaml or ok/legacy.yaml, or is refused in bad. */
START_TEST(every_key_is_tried)
{
    static const char *const files[][2] = {{"ok", "full.yaml"},         {"ok", "legacy.yaml"},
                                           {"ok", "graph.yaml"},        {"ok", "runtime-env.yaml"},
                                           {"bad", "many-errors.yaml"}, {"bad", "app-port.yaml"},
                                           {"bad", "runtime-env.yaml"}};
    rs_auto(rs_buf_fini) struct rs_buf text = {0};

    for (size_t i = 0; i < RS_COUNT(files); i++) {
        rs_auto(rs_freep) char *path = data_path(files[i][0], files[i][1]);

        slurp(path, &text);
    }
    for (size_t i = 0; rs_objects[i]; i++) {
        for (size_t k = 0; k < rs_objects[i]->count; k++) {
            rs_auto(rs_freep) char *key = rs_asprintf("%s:", rs_objects[i]->fields[k].name);

            ck_assert_msg(strstr(rs_buf_text(&text), key) != NULL, "no file has the key %s", key);
        }
    }
}
END_TEST

/* --- tables -------------------------------------------------------------------------------------- */

/* A default must be a value that the field itself accepts. */
START_TEST(defaults_are_valid)
{
    for (size_t i = 0; rs_objects[i]; i++) {
        for (size_t k = 0; k < rs_objects[i]->count; k++) {
            const struct rs_field *f = &rs_objects[i]->fields[k];
            struct rs_object alone = {.fields = f, .count = 1};
            rs_auto(rs_arena_fini) struct rs_arena arena = {0};
            rs_auto(rs_json_decrefp) json_t *map = json_object(), *got = NULL, *def = NULL;
            rs_auto(rs_diags_fini) struct rs_diags diags = {0};
            struct rs_walk w = {.diags = &diags};

            ck_assert_msg(f->help && *f->help, "%s has no help", f->name);
            if (!f->def || f->alias_of)
                continue;
            def = rs_field_default(f);
            ck_assert_msg(def != NULL, "%s: the default is not JSON", f->name);
            json_object_set(map, f->name, def);
            got = rs_decode(&w, &alone, rs_node_from_json(&arena, map, NULL));
            rs_buf_fini(&w.path);
            ck_assert_msg(diags.count == 0, "%s: %s", f->name,
                          diags.count ? diags.items[0].text : "");
            ck_assert_ptr_nonnull(json_object_get(got, f->name));
        }
    }
}
END_TEST

START_TEST(aliases_exist)
{
    for (size_t i = 0; rs_objects[i]; i++) {
        for (size_t k = 0; k < rs_objects[i]->count; k++) {
            const char *alias = rs_objects[i]->fields[k].alias_of;

            if (alias)
                ck_assert_ptr_nonnull(rs_field_find(rs_objects[i], alias));
        }
    }
}
END_TEST

/* The reference names every key, within 80 columns; the page of it has a row for each. */
START_TEST(reference_is_whole)
{
    for (int markdown = 0; markdown < 2; markdown++) {
        char *text = NULL;
        size_t size = 0;
        FILE *f = open_memstream(&text, &size);

        rs_config_reference_print(f, markdown);
        fclose(f);
        for (size_t i = 0; rs_objects[i]; i++) {
            ck_assert_ptr_nonnull(strstr(text, rs_objects[i]->place));
            for (size_t k = 0; k < rs_objects[i]->count; k++) {
                rs_auto(rs_freep) char *row = rs_asprintf(markdown ? "\n| `%s` | " : "\n  %s\n",
                                                          rs_objects[i]->fields[k].name);

                ck_assert_msg(strstr(text, row) != NULL, "no entry for %s", row);
            }
        }
        for (const char *p = text; !markdown && *p; p += strcspn(p, "\n") + 1)
            ck_assert_uint_le(strcspn(p, "\n"), 80);
        free(text);
    }
}
END_TEST

/* --- typed values -------------------------------------------------------------------------------- */

static struct rs_config *parse(const char *text)
{
    struct rs_config *c = NULL;
    struct rs_diags diags = {0};
    int r = rs_config_parse(&c, text, strlen(text), "/etc/apps/app.yaml", &diags);

    ck_assert_msg(r == 0, "%s", diags.count ? diags.items[0].text : "failed");
    rs_diags_fini(&diags);
    return c;
}

START_TEST(defaults)
{
    rs_auto(rs_config_freep) struct rs_config *c = parse("applications: [{import_path: 'm:a'}]");
    const struct rs_config_app *app = &c->apps[0];

    ck_assert_int_eq(c->proxy_location, RS_PROXY_EVERY_NODE);
    ck_assert_ptr_null(c->http.host);
    ck_assert_int_eq(c->http.port, 8000);
    ck_assert_str_eq(c->http.root_path, "");
    ck_assert_int_eq(c->http.request_timeout, -1);
    ck_assert_int_eq(c->http.keep_alive_timeout, INT64_C(90000000000));
    ck_assert_ptr_null(c->http.ssl[RS_SSL_KEYFILE]);
    ck_assert_int_eq(c->grpc.port, 9000);
    ck_assert(c->grpc.enable_reflection);
    ck_assert_int_eq(c->logging.level, 20);
    ck_assert_int_eq(c->logging.encoding, RS_ENCODING_TEXT);
    ck_assert(c->logging.access_log);
    ck_assert(!c->tracing.enabled);
    ck_assert_double_eq(c->target_capacity, -1);
    ck_assert_uint_eq(c->app_count, 1);
    ck_assert_str_eq(app->name, "default");
    ck_assert_str_eq(app->route_prefix, "/");
    ck_assert_str_eq(app->import_path, "m:a");
    ck_assert_str_eq(app->app_dir, "/etc/apps");
    ck_assert_ptr_null(app->python);
    ck_assert_ptr_null(app->ingress);
    ck_assert_ptr_null(app->failure);
    ck_assert_int_eq(app->start, RS_CONFIG_FORK);
    ck_assert(json_is_object(app->args) && json_is_object(app->runtime_env));
    ck_assert_ptr_null(app->logging_config);
    ck_assert_int_eq(app->line, 1);
}
END_TEST

START_TEST(values)
{
    rs_auto(rs_config_freep) struct rs_config *c =
        parse("proxy_location: Disabled\n"
              "http_options: {port: 1, request_timeout_s: 0.5, host: '::1'}\n"
              "tracing_config: {exporter_import_path: 'a:b'}\n"
              "target_capacity: 0\n"
              "applications:\n"
              "  - name: a\n"
              "    route_prefix: null\n"
              "    import_path: m:a\n"
              "    rserve: {start: spawn, python: ./venv/bin/python, app_dir: /src}\n"
              "    deployments: [{name: A}, {name: B, rserve: {kind: exec, command: ./b}}]\n"
              "  - name: b\n"
              "    rserve: {python: python3.12, app_dir: lib}\n"
              "    deployments: [{name: X, rserve: {kind: http, command: 'x {port}'}}]\n");
    const struct rs_config_app *a = rs_config_find_app(c, "a"), *b = rs_config_find_app(c, "b");

    ck_assert_int_eq(c->proxy_location, RS_PROXY_DISABLED);
    ck_assert_str_eq(rs_proxy_location_name(c->proxy_location), "Disabled");
    ck_assert_str_eq(c->http.host, "::1");
    ck_assert_int_eq(c->http.request_timeout, 500000000);
    ck_assert(c->tracing.enabled);
    ck_assert_double_eq(c->target_capacity, 0);
    ck_assert_ptr_null(a->route_prefix);
    ck_assert_int_eq(a->start, RS_CONFIG_SPAWN);
    ck_assert_str_eq(a->python, "/etc/apps/venv/bin/python");
    ck_assert_str_eq(a->app_dir, "/src");
    ck_assert_uint_eq(a->deployment_count, 2);
    ck_assert_int_eq(a->deployments[1].kind, RS_KIND_EXEC);
    ck_assert_int_eq(a->deployments[1].line, 10);
    ck_assert_str_eq(b->python, "python3.12");
    ck_assert_str_eq(b->app_dir, "/etc/apps/lib");
    ck_assert_ptr_null(b->import_path);
    ck_assert_str_eq(b->ingress, "X");
    ck_assert_ptr_null(rs_config_find_app(c, "c"));
    ck_assert_ptr_nonnull(rs_config_app_find(a, "B"));
    ck_assert_ptr_null(rs_config_app_find(a, "C"));
}
END_TEST

START_TEST(failure_is_noted)
{
    rs_auto(rs_config_freep) struct rs_config *c = NULL;
    struct rs_diags diags = {0};
    static const char text[] = "applications:\n"
                               "  - {name: bad, route_prefix: x, import_path: 'm:a'}\n"
                               "  - {name: good, route_prefix: /y, import_path: 'm:a'}\n";

    ck_assert_int_eq(rs_config_parse(&c, text, strlen(text), NULL, &diags), 0);
    ck_assert_uint_eq(diags.errors, 1);
    ck_assert_uint_eq(diags.deploy_errors, 1);
    ck_assert(diags.items[0].deploy_time);
    ck_assert_str_eq(c->apps[0].failure, "applications[0].route_prefix: Invalid route_prefix 'x', "
                                         "must start with '/'");
    ck_assert_ptr_null(c->apps[0].route_prefix);
    ck_assert_ptr_null(c->apps[1].failure);
    rs_diags_fini(&diags);
}
END_TEST

/* What Ray's schema refuses, and what it lets pass to fail later. */
static const struct {
    const char *member;
    bool late;
} late_cases[] = {
    {"route_prefix: x", true},
    {"route_prefix: 7", false},
    {"runtime_env: {env_vars: {A: 1}}", true},
    {"runtime_env: x", false},
    {"deployments: [{name: A, autoscaling_config: {min_replicas: -1}}]", true},
    {"deployments: [{name: A, autoscaling_config: 3}]", false},
    {"deployments: [{name: A, autoscaling_config: {policy: 3}}]", true},
    {"deployments: [{name: A, max_replicas_per_node: 0}]", true},
    {"deployments: [{name: A, max_replicas_per_node: x}]", false},
    {"deployments: [{name: A, placement_group_strategy: x}]", true},
    {"deployments: [{name: A, num_replicas: 0}]", false},
    {"deployments: [{name: A, ray_actor_options: {num_cpus: -1}}]", false},
    {"deployments: [{name: A, gang_scheduling_config: {gang_size: 0}}]", true},
    {"deployments: [{name: A, deployment_actors: x}]", false},
};

START_TEST(late_errors)
{
    rs_auto(rs_freep) char *text =
        rs_asprintf("applications: [{import_path: 'm:a', %s}]", late_cases[_i].member);
    rs_auto(rs_config_freep) struct rs_config *c = NULL;
    struct rs_diags diags = {0};

    ck_assert_int_eq(rs_config_parse(&c, text, strlen(text), NULL, &diags),
                     late_cases[_i].late ? 0 : -1);
    ck_assert_uint_ge(diags.errors, 1);
    ck_assert_uint_eq(diags.deploy_errors, late_cases[_i].late ? diags.errors : 0);
    ck_assert(!c || c->apps[0].failure);
    rs_diags_fini(&diags);
}
END_TEST

/* --- the command line ---------------------------------------------------------------------------- */

START_TEST(from_import)
{
    rs_auto(rs_config_freep) struct rs_config *c = NULL, *d = NULL;
    rs_auto(rs_json_decrefp) json_t *args = json_pack("{s:s}", "word", "x");
    struct rs_error err = {0};

    ck_assert_int_eq(rs_config_from_import(&c, "m:app", NULL, NULL, args, &err), 0);
    ck_assert_str_eq(c->apps[0].name, "default");
    ck_assert_str_eq(c->apps[0].route_prefix, "/");
    ck_assert(json_equal(c->apps[0].args, args));
    ck_assert_int_eq(rs_config_from_import(&d, "m.app", "n", "/p", NULL, &err), 0);
    ck_assert_str_eq(d->apps[0].route_prefix, "/p");
    ck_assert(rs_config_app_code_hash(&c->apps[0]) != rs_config_app_code_hash(&d->apps[0]));
}
END_TEST

static const struct {
    const char *import_path, *name, *route_prefix, *want;
} refused[] = {
    {"app.yaml:", NULL, NULL, "expected a file, or an import path"},
    {"m:app", "", NULL, "Application names must be nonempty"},
    {"m:app", NULL, "x", "must start with '/'"},
    {"m:app", "\xff", NULL, "UTF-8"},
};

START_TEST(from_import_refuses)
{
    struct rs_config *c = NULL;
    struct rs_error err = {0};

    ck_assert_int_eq(rs_config_from_import(&c, refused[_i].import_path, refused[_i].name,
                                           refused[_i].route_prefix, NULL, &err),
                     -1);
    ck_assert_ptr_null(c);
    ck_assert_msg(strstr(err.msg, refused[_i].want) != NULL, "%s", err.msg);
}
END_TEST

START_TEST(setters)
{
    rs_auto(rs_config_freep) struct rs_config *c = parse("applications: [{import_path: 'm:a'}]");
    rs_auto(rs_config_freep) struct rs_config *none = parse("applications: []");
    rs_auto(rs_json_decrefp) json_t *echo = NULL;
    struct rs_error err = {0};

    ck_assert_int_eq(rs_config_set_name(c, "n", &err), 0);
    ck_assert_int_eq(rs_config_set_route_prefix(c, "/r", &err), 0);
    ck_assert_int_eq(rs_config_set_host(c, "0.0.0.0", &err), 0);
    ck_assert_int_eq(rs_config_set_port(c, 81, &err), 0);
    ck_assert_int_eq(rs_config_set_app_dir(c, "/dir", &err), 0);
    ck_assert_str_eq(c->apps[0].name, "n");
    ck_assert_str_eq(c->apps[0].route_prefix, "/r");
    ck_assert_str_eq(c->http.host, "0.0.0.0");
    ck_assert_int_eq(c->http.port, 81);
    ck_assert_str_eq(c->apps[0].app_dir, "/dir");
    echo = rs_config_app_echo(&c->apps[0]);
    ck_assert_str_eq(rs_json_str(echo, "name", ""), "n");
    ck_assert_str_eq(rs_json_str(echo, "route_prefix", ""), "/r");

    ck_assert_int_eq(rs_config_set_name(c, "", &err), -1);
    ck_assert_int_eq(rs_config_set_route_prefix(c, "/r/", &err), -1);
    ck_assert_int_eq(rs_config_set_host(c, "", &err), -1);
    ck_assert_int_eq(rs_config_set_port(c, 65536, &err), -1);
    ck_assert_int_eq(rs_config_set_app_dir(c, "", &err), -1);
    ck_assert_int_eq(rs_config_set_name(none, "n", &err), -1);
    ck_assert_int_eq(rs_config_set_route_prefix(none, "/r", &err), -1);
    ck_assert_ptr_nonnull(strstr(err.msg, "this one has 0"));
}
END_TEST

/* --- the rest ------------------------------------------------------------------------------------ */

START_TEST(echo)
{
    rs_auto(rs_config_freep) struct rs_config *c =
        parse("applications: [{name: shape, route_prefix: /s, import_path: 'app:app', unknown: 1,\n"
              "  deployments: [{name: Inner, max_ongoing_requests: 11}]}]");
    rs_auto(rs_json_decrefp) json_t *got = rs_config_app_echo(&c->apps[0]);
    rs_auto(rs_json_decrefp) json_t *want =
        json_pack("{s:s, s:s, s:s, s:{}, s:[{s:s, s:i}]}", "name", "shape", "route_prefix", "/s",
                  "import_path", "app:app", "runtime_env", "deployments", "name", "Inner",
                  "max_ongoing_requests", 11);

    ck_assert(json_equal(got, want));
}
END_TEST

START_TEST(rest_options)
{
    rs_auto(rs_config_freep) struct rs_config *c =
        parse("{http_options: {ssl_keyfile: k, ssl_certfile: c, ssl_keyfile_password: secret},"
              " applications: []}");
    rs_auto(rs_json_decrefp) json_t *http = rs_http_options_json(&c->http);
    rs_auto(rs_json_decrefp) json_t *grpc = rs_grpc_options_json(&c->grpc);

    ck_assert_uint_eq(json_object_size(http), 9);
    ck_assert(json_is_null(json_object_get(http, "request_timeout_s")));
    ck_assert_int_eq(rs_json_int(http, "keep_alive_timeout_s", 0), 90);
    ck_assert_str_eq(rs_json_str(http, "ssl_keyfile_password", ""), "<redacted>");
    ck_assert_uint_eq(json_object_size(grpc), 4);
    ck_assert(json_is_true(json_object_get(grpc, "enable_reflection")));
}
END_TEST

/* A document that came over REST names what other machines can reach, or what is there. */
START_TEST(remote_runtime_env)
{
    static const struct {
        const char *env;
        bool ok;
    } cases[] = {
        {"working_dir: code", false},
        {"working_dir: /nonexistent/code", false},
        {"working_dir: /", true},
        {"working_dir: 'https://h/z.zip', py_modules: ['file:///z.zip', /]", true},
        {"py_modules: [mods/a]", false},
        {"pip: [a]", true},
    };

    for (size_t i = 0; i < RS_COUNT(cases); i++) {
        for (int own = 0; own < 2; own++) {
            rs_auto(rs_freep) char *text =
                rs_asprintf(own ? "applications: [{import_path: 'm:a', deployments: [{name: A,"
                                  " ray_actor_options: {runtime_env: {%s}}}]}]"
                                : "applications: [{import_path: 'm:a', runtime_env: {%s}}]",
                            cases[i].env);
            rs_auto(rs_config_freep) struct rs_config *c = NULL, *f = NULL;
            struct rs_diags diags = {0};
            int r = rs_config_parse(&c, text, strlen(text), NULL, &diags);

            ck_assert_msg((r == 0) == cases[i].ok, "%s: %d", text, r);
            ck_assert(cases[i].ok ||
                      strstr(diags.items[0].text, "support only remote URIs in working_dir"));
            ck_assert_uint_eq(diags.deploy_errors, 0); /* the whole document is refused */
            ck_assert_int_eq(rs_config_parse(&f, text, strlen(text), "/f/app.yaml", &diags), 0);
            rs_diags_fini(&diags);
        }
    }
}
END_TEST

START_TEST(code_hash_follows_the_code)
{
    static const char *const same = "applications: [{import_path: 'm:a', args: {a: 1, b: 2}}]";
    static const char *const others[] = {
        "applications: [{import_path: 'm:b', args: {a: 1, b: 2}}]",
        "applications: [{import_path: 'm:a', args: {a: 1, b: 3}}]",
        "applications: [{import_path: 'm:a', args: {a: 1, b: 2}, runtime_env: {pip: [x]}}]",
        "applications: [{import_path: 'm:a', args: {a: 1, b: 2}, rserve: {start: spawn}}]",
        "applications: [{import_path: 'm:a', args: {a: 1, b: 2}, rserve: {python: python3.9}}]",
        "applications: [{import_path: 'm:a', args: {a: 1, b: 2}, rserve: {app_dir: x}}]",
    };
    static const char *const alike[] = {
        "applications: [{import_path: 'm:a', args: {b: 2, a: 1}}]",
        "applications: [{import_path: 'm:a', args: {a: 1, b: 2}, route_prefix: /x, name: y}]",
        "applications: [{import_path: 'm:a', args: {a: 1, b: 2}, deployments: [{name: A}]}]",
    };
    rs_auto(rs_config_freep) struct rs_config *c = parse(same);

    for (size_t i = 0; i < RS_COUNT(others); i++) {
        rs_auto(rs_config_freep) struct rs_config *o = parse(others[i]);

        ck_assert(rs_config_app_code_hash(&c->apps[0]) != rs_config_app_code_hash(&o->apps[0]));
    }
    for (size_t i = 0; i < RS_COUNT(alike); i++) {
        rs_auto(rs_config_freep) struct rs_config *o = parse(alike[i]);

        ck_assert(rs_config_app_code_hash(&c->apps[0]) == rs_config_app_code_hash(&o->apps[0]));
    }
}
END_TEST

START_TEST(unreadable_file)
{
    struct rs_config *c = NULL;
    struct rs_diags diags = {0};
    struct rs_error err = {0};

    ck_assert_int_eq(rs_config_load(&c, "/nonexistent/app.yaml", &diags), -1);
    ck_assert_int_eq(rs_config_load(&c, "/", &diags), -1);
    ck_assert_int_eq(rs_diags_to_error(&diags, &err), -1);
    ck_assert_str_eq(
        err.msg, "/nonexistent/app.yaml: cannot be read: No such file or directory (and 1 more)");
    ck_assert_str_eq(diags.items[1].text, "expected a file, found a directory");
    rs_diags_fini(&diags);
}
END_TEST

START_TEST(too_long)
{
    rs_auto(rs_freep) char *text = rs_alloc(RS_CONFIG_MAX + 1);
    struct rs_config *c = NULL;
    struct rs_diags diags = {0};

    memset(text, ' ', RS_CONFIG_MAX + 1);
    ck_assert_int_eq(rs_config_parse(&c, text, RS_CONFIG_MAX + 1, NULL, &diags), -1);
    ck_assert_ptr_nonnull(strstr(diags.items[0].text, "at most"));
    rs_diags_fini(&diags);
}
END_TEST

/* What is dropped is counted, and errors are not crowded out by warnings. */
START_TEST(many_diags)
{
    struct rs_diags diags = {0};
    const struct rs_diag_at at = {.file = "f", .path = "p", .line = 2, .column = 3};
    rs_auto(rs_buf_fini) struct rs_buf text = {0};

    for (int i = 0; i < RS_DIAGS_MAX + 5; i++)
        rs_diags_add(&diags, RS_WARNING, &at, "number %d", i);
    rs_diags_add(&diags, RS_ERROR, &(struct rs_diag_at){.line = 1, .column = 1}, "first");
    rs_diags_sort(&diags);
    ck_assert_uint_eq(diags.count, RS_DIAGS_MAX + 1);
    ck_assert_uint_eq(diags.dropped, 5);
    rs_diags_print(&text, &diags);
    ck_assert_int_eq(strncmp(rs_buf_text(&text), "1:1: first\nf:2:3: warning: p: number 0\n", 38),
                     0);
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&text), "\nand 5 more\n"));
    rs_diags_fini(&diags);
}
END_TEST

static const struct {
    const char *text, *words; /* parted by | ; NULL: refused */
} commands[] = {
    {"a b  c", "a|b|c"},
    {"", ""},
    {"  \t\n", ""},
    {"'a b' \"c d\"", "a b|c d"},
    {"a'b'\"c\"d", "abcd"},
    {"a\\ b \\'", "a b|'"},
    {"\"a\\\"b\\n\"", "a\"b\\n"},
    {"'a\\'", "a\\"},
    {"'' x", "|x"},
    {"a 'b", NULL},
    {"a \"b", NULL},
    {"\"a\\", NULL},
    {"a\\", "a\\"},
};

START_TEST(command_split)
{
    rs_auto(rs_json_decrefp) json_t *words = rs_command_split(commands[_i].text);
    rs_auto(rs_buf_fini) struct rs_buf got = {0};

    if (!commands[_i].words) {
        ck_assert_ptr_null(words);
        return;
    }
    for (size_t i = 0; i < json_array_size(words); i++)
        rs_buf_printf(&got, "%s%s", i ? "|" : "", json_string_value(json_array_get(words, i)));
    ck_assert_str_eq(rs_buf_text(&got), commands[_i].words);
}
END_TEST

static const struct {
    const char *word;
    int port;
    const char *socket, *want;
} expansions[] = {
    {"{port}", 80, NULL, "80"},           {"a{port}b{port}", 8000, NULL, "a8000b8000"},
    {"{socket}", 0, "/s", "/s"},          {"{port}", 0, "/s", "{port}"},
    {"{socket}", 1, NULL, "{socket}"},    {"{{port}}", 80, NULL, "{port}"},
    {"{other} {", 80, NULL, "{other} {"}, {"", 80, NULL, ""},
};

START_TEST(command_expand)
{
    rs_auto(rs_buf_fini) struct rs_buf got = {0};

    rs_command_expand(&got, expansions[_i].word, expansions[_i].port, expansions[_i].socket);
    ck_assert_str_eq(rs_buf_text(&got), expansions[_i].want);
}
END_TEST

static const struct {
    const char *name;
    enum rs_deployment_kind kind;
    bool known;
} names[] = {{"A", RS_KIND_PYTHON, true}, {"Nope", RS_KIND_PYTHON, false}};

START_TEST(check_names)
{
    static const char *const have[] = {"A", "B"};
    rs_auto(rs_freep) char *text =
        rs_asprintf("applications: [{import_path: 'm:a', deployments: [{name: %s},"
                    " {name: x, rserve: {kind: exec, command: ./x}}]}]",
                    names[_i].name);
    rs_auto(rs_config_freep) struct rs_config *c = parse(text);
    struct rs_error err = {0};

    ck_assert_int_eq(rs_config_app_check_names(&c->apps[0], have, 2, &err),
                     names[_i].known ? 0 : -1);
    if (!names[_i].known)
        ck_assert_str_eq(err.msg,
                         "ValueError: Deployment 'Nope' does not exist. Available: ['A', 'B']");
}
END_TEST

RS_CHECK_MAIN("config", tcase_add_test(tc, files_ok); tcase_add_test(tc, files_bad);
              tcase_add_test(tc, every_key_is_tried); tcase_add_test(tc, defaults_are_valid);
              tcase_add_test(tc, aliases_exist); tcase_add_test(tc, reference_is_whole);
              tcase_add_test(tc, defaults); tcase_add_test(tc, values);
              tcase_add_test(tc, failure_is_noted);
              tcase_add_loop_test(tc, late_errors, 0, RS_COUNT(late_cases));
              tcase_add_test(tc, from_import);
              tcase_add_loop_test(tc, from_import_refuses, 0, RS_COUNT(refused));
              tcase_add_test(tc, setters); tcase_add_test(tc, echo);
              tcase_add_test(tc, rest_options); tcase_add_test(tc, code_hash_follows_the_code);
              tcase_add_test(tc, remote_runtime_env); tcase_add_test(tc, unreadable_file);
              tcase_add_test(tc, too_long); tcase_add_test(tc, many_diags);
              tcase_add_loop_test(tc, command_split, 0, RS_COUNT(commands));
              tcase_add_loop_test(tc, command_expand, 0, RS_COUNT(expansions));
              tcase_add_loop_test(tc, check_names, 0, RS_COUNT(names));)
