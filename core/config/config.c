#include "core/config/config.h"

#include "core/base/alloc.h"
#include "core/config/fields.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- paths --------------------------------------------------------------------------------------- */

static char *working_dir(void)
{
    char buf[PATH_MAX];

    return rs_strdup(getcwd(buf, sizeof(buf)) ? buf : "/");
}

char *rs_config_path(const char *dir, const char *path)
{
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    if (*path == '/')
        return rs_strdup(path);
    if (!*path || strcmp(path, ".") == 0)
        return rs_strdup(dir);
    return rs_asprintf("%s/%s", strcmp(dir, "/") == 0 ? "" : dir, path);
}

static char *dir_of(const char *file)
{
    rs_auto(rs_freep) char *cwd = working_dir(), *dir = NULL;
    const char *slash = file ? strrchr(file, '/') : NULL;

    if (!slash)
        return rs_steal(cwd);
    dir = slash == file ? rs_strdup("/") : rs_strndup(file, (size_t)(slash - file));
    return rs_config_path(cwd, dir);
}

/* --- from checked JSON to structs ---------------------------------------------------------------- */

/* Replaces a text of `obj`, which `complete` is or holds. */
static void put(json_t *obj, const char *key, const char *text)
{
    json_object_set_new(obj, key, text ? json_string_nocheck(text) : json_null());
}

static void put_path(json_t *obj, const char *key, const char *dir, const char *path)
{
    rs_auto(rs_freep) char *full = rs_config_path(dir, path);

    put(obj, key, full);
}

static void fill_deployments(struct rs_config_app *app)
{
    json_t *list = json_object_get(app->json, "deployments");

    app->deployment_count = json_array_size(list);
    app->deployments = rs_alloc(app->deployment_count * sizeof(*app->deployments));
    for (size_t i = 0; i < app->deployment_count; i++) {
        struct rs_config_deployment *d = &app->deployments[i];
        const char *kind;

        d->options = json_array_get(list, i);
        d->name = rs_json_str(d->options, "name", "");
        kind = rs_json_str(json_object_get(d->options, "rserve"), "kind", "python");
        while (strcmp(rs_deployment_kind_name(d->kind), kind) != 0)
            d->kind++;
    }
}

/* The place of an application's runtime_env, for a file that it names and that cannot be read. */
static void resolve_env(struct rs_config *c, struct rs_config_app *app, size_t i,
                        const struct rs_node *map, struct rs_diags *diags)
{
    const struct rs_node_entry *e = map ? rs_node_get(map, "runtime_env") : NULL;
    json_t *env = json_deep_copy(json_object_get(app->complete, "runtime_env"));
    rs_auto(rs_freep) char *path = rs_asprintf("applications[%zu].runtime_env", i);
    struct rs_error err = {0};

    if (rs_runtime_env_resolve(env, c->dir, &err) < 0)
        rs_diags_add(diags, RS_ERROR,
                     &(struct rs_diag_at){.file = c->file,
                                          .path = path,
                                          .line = e ? e->line : 0,
                                          .column = e ? e->column : 0,
                                          .deploy_time = true},
                     "%s", err.msg);
    json_object_set_new(app->complete, "runtime_env", env);
    app->runtime_env = env;
}

static void fill_app(struct rs_config *c, struct rs_config_app *app, json_t *json)
{
    const json_t *graph;
    json_t *ext;
    const char *text;

    app->json = json_incref(json);
    app->complete = rs_complete(&rs_object_app, json);
    ext = json_object_get(app->complete, "rserve");
    put_path(ext, "app_dir", c->dir, rs_json_str(ext, "app_dir", "."));
    text = rs_json_str(ext, "python", NULL);
    if (text && strchr(text, '/'))
        put_path(ext, "python", c->dir, text);
    rs_fill(&rs_object_app, app->complete, app);
    fill_deployments(app);
    if (!app->import_path && !app->ingress && app->deployment_count)
        app->ingress = app->deployments[0].name;
    graph = json_object_get(ext, "graph");
    if (json_is_string(graph) || json_is_object(graph))
        app->graph = rs_graph_conf_expand(graph);
}

static void resolve_access_log(struct rs_config *c)
{
    json_t *ext = json_object_get(json_object_get(c->complete, "http_options"), "rserve");
    const char *path = rs_json_str(ext, "access_log", NULL);

    if (path && strcmp(path, "-") != 0)
        put_path(ext, "access_log", c->dir, path);
}

const char *const rs_ssl_names[RS_SSL_COUNT] = {"ssl_keyfile", "ssl_certfile",
                                                "ssl_keyfile_password", "ssl_ca_certs"};

/* Absolute paths, and where in the file they stand. */
static void fill_ssl(struct rs_config *c, const struct rs_node *root)
{
    const struct rs_node_entry *map = rs_node_get(root, "http_options");
    json_t *http = json_object_get(c->complete, "http_options");

    for (size_t i = 0; i < RS_SSL_COUNT; i++) {
        const struct rs_node_entry *e = map && map->value->kind == RS_NODE_MAP
                                            ? rs_node_get(map->value, rs_ssl_names[i])
                                            : NULL;
        const char *text = rs_json_str(http, rs_ssl_names[i], NULL);

        if (!text)
            continue;
        if (i != RS_SSL_PASSWORD)
            put_path(http, rs_ssl_names[i], c->dir, text);
        c->http.ssl[i] = rs_json_str(http, rs_ssl_names[i], NULL);
        c->http.ssl_at[i].line = e ? e->value->line : 0;
        c->http.ssl_at[i].column = e ? e->value->column : 0;
    }
}

static void fill_config(struct rs_config *c, const struct rs_node *root, struct rs_diags *diags)
{
    const struct rs_node_entry *list = rs_node_get(root, "applications");
    const json_t *apps, *tracing;

    c->complete = rs_complete(&rs_object_config, c->json);
    resolve_access_log(c);
    rs_fill(&rs_object_config, c->complete, c);
    fill_ssl(c, root);
    c->controller_options = json_object_get(c->json, "controller_options");
    tracing = json_object_get(c->json, "tracing_config");
    if (!json_object_get(tracing, "enabled"))
        c->tracing.enabled = *c->tracing.exporter_import_path != '\0';
    if (!rs_json_str(json_object_get(json_object_get(c->complete, "http_options"), "rserve"),
                     "access_log_format", NULL))
        c->http.access_log_format = (int)c->logging.encoding;
    if (c->http.request_timeout <= 0)
        c->http.request_timeout = -1;
    apps = json_object_get(c->json, "applications");
    c->app_count = json_array_size(apps);
    c->apps = rs_alloc(c->app_count * sizeof(*c->apps));
    for (size_t i = 0; i < c->app_count; i++) {
        fill_app(c, &c->apps[i], json_array_get(apps, i));
        resolve_env(c, &c->apps[i], i, list ? list->value->items[i] : NULL, diags);
    }
}

/* Places and the first deploy-time error of each application. */
static void note_places(struct rs_config *c, const struct rs_node *root,
                        const struct rs_diags *diags)
{
    const struct rs_node *apps = rs_node_get(root, "applications")->value;

    for (size_t i = 0; i < c->app_count; i++) {
        struct rs_config_app *app = &c->apps[i];
        const struct rs_node_entry *list = rs_node_get(apps->items[i], "deployments");
        rs_auto(rs_freep) char *prefix = rs_asprintf("applications[%zu].", i);

        app->line = apps->items[i]->line;
        app->column = apps->items[i]->column;
        for (size_t k = 0; list && k < app->deployment_count; k++) {
            app->deployments[k].line = list->value->items[k]->line;
            app->deployments[k].column = list->value->items[k]->column;
        }
        for (size_t k = 0; k < diags->count && !app->failure; k++) {
            const struct rs_diag *d = &diags->items[k];

            if (d->deploy_time && strncmp(d->path, prefix, strlen(prefix)) == 0)
                app->failure = rs_asprintf("%s: %s", d->path, d->text);
        }
        if (app->failure)
            app->route_prefix = NULL; /* what is not deployed has no route */
    }
}

/* --- reading ------------------------------------------------------------------------------------- */

static void deployment_env(struct rs_walk *w, const struct rs_node *map)
{
    const struct rs_node_entry *o = rs_node_get(map, "ray_actor_options");
    const struct rs_node_entry *env =
        o && o->value->kind == RS_NODE_MAP ? rs_node_get(o->value, "runtime_env") : NULL;
    size_t back;

    if (w->file || !env || env->value->kind != RS_NODE_MAP)
        return;
    back = rs_walk_key(w, "ray_actor_options");
    rs_rules_remote_env(w, env->value);
    rs_walk_back(w, back);
}

static void app_rules(struct rs_walk *w, const json_t *app, const struct rs_node *map)
{
    const struct rs_node_entry *e = rs_node_get(map, "deployments");
    const struct rs_node_entry *env = rs_node_get(map, "runtime_env");
    const json_t *list = json_object_get(app, "deployments");
    size_t back;

    rs_rules_app_file(w, app, map);
    rs_rules_graph(w, app, map);
    if (!w->file && env && env->value->kind == RS_NODE_MAP)
        rs_rules_remote_env(w, env->value);
    back = rs_walk_key(w, "deployments");
    for (size_t i = 0; e && i < json_array_size(list); i++) {
        size_t here = rs_walk_index(w, i);

        if (e->value->items[i]->kind == RS_NODE_MAP) {
            rs_rules_deployment_file(w, json_array_get(list, i), e->value->items[i]);
            deployment_env(w, e->value->items[i]);
        }
        rs_walk_back(w, here);
    }
    rs_walk_back(w, back);
}

/* The document as JSON by the tables; errors go to the walk's diags. */
static json_t *check(struct rs_walk *w, const struct rs_node *root)
{
    json_t *json = rs_decode(w, &rs_object_config, root);
    const struct rs_node_entry *e = rs_node_get(root, "applications");
    const json_t *apps = json_object_get(json, "applications");
    size_t back;

    rs_rules_config_file(w, json, root);
    back = rs_walk_key(w, "applications");
    for (size_t i = 0; e && i < json_array_size(apps); i++) {
        size_t here = rs_walk_index(w, i);

        if (e->value->items[i]->kind == RS_NODE_MAP)
            app_rules(w, json_array_get(apps, i), e->value->items[i]);
        rs_walk_back(w, here);
    }
    rs_walk_back(w, back);
    return json;
}

static int from_node(struct rs_config **ret, const struct rs_node *root, const char *file,
                     struct rs_diags *diags)
{
    struct rs_walk w = {.diags = diags, .file = file};
    rs_auto(rs_config_freep) struct rs_config *c = rs_alloc(sizeof(*c));
    size_t before = rs_diags_schema_errors(diags);

    if (root->kind != RS_NODE_MAP) {
        rs_auto(rs_buf_fini) struct rs_buf got = {0};

        rs_node_show(&got, root);
        rs_walk_error(&w, root->line, root->column,
                      "expected a mapping with the key \"applications\", %s", rs_buf_text(&got));
        return -1;
    }
    c->json = check(&w, root);
    rs_buf_fini(&w.path);
    rs_diags_sort(diags);
    if (rs_diags_schema_errors(diags) > before || diags->errors > RS_DIAGS_MAX)
        return -1;
    c->file = rs_strdup(file);
    c->dir = dir_of(file);
    fill_config(c, root, diags);
    rs_diags_sort(diags);
    note_places(c, root, diags);
    *ret = rs_steal(c);
    return 0;
}

int rs_config_parse(struct rs_config **ret, const char *text, size_t len, const char *file,
                    struct rs_diags *diags)
{
    rs_auto(rs_arena_fini) struct rs_arena arena = {0};
    const struct rs_diag_at at = {.file = file};
    const struct rs_node *root;

    if (len > RS_CONFIG_MAX) {
        rs_diags_add(diags, RS_ERROR, &at, "expected at most %u bytes, got %zu", RS_CONFIG_MAX,
                     len);
        return -1;
    }
    root = rs_node_parse(&arena, text, len, file, diags);
    return root ? from_node(ret, root, file, diags) : -1;
}

/* The whole of a file of bounded size; also of a pipe (`rserve run <(...)`). */
static int read_all(const char *file, struct rs_buf *out, struct rs_error *err)
{
    rs_auto(rs_closep) int fd = open(file, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0)
        return rs_error_errno(err, errno, "cannot be read");
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
        return rs_error_set(err, RS_INVALID, "expected a file, found a directory");
    while (rs_buf_len(out) <= RS_CONFIG_MAX) {
        ssize_t n = read(fd, rs_buf_reserve(out, 65536), 65536);

        if (n < 0)
            return rs_error_errno(err, errno, "cannot be read");
        if (n == 0)
            return 0;
        rs_buf_commit(out, (size_t)n);
    }
    return rs_error_set(err, RS_INVALID, "expected at most %u bytes, found more", RS_CONFIG_MAX);
}

int rs_config_load(struct rs_config **ret, const char *file, struct rs_diags *diags)
{
    rs_auto(rs_buf_fini) struct rs_buf text = {0};
    const struct rs_diag_at at = {.file = file};
    struct rs_error err = {0};

    if (read_all(file, &text, &err) < 0) {
        rs_diags_add(diags, RS_ERROR, &at, "%s", err.msg);
        return -1;
    }
    return rs_config_parse(ret, rs_buf_text(&text), rs_buf_len(&text), file, diags);
}

int rs_yaml_load(json_t **ret, const char *file, struct rs_error *err)
{
    rs_auto(rs_arena_fini) struct rs_arena arena = {0};
    rs_auto(rs_buf_fini) struct rs_buf text = {0};
    rs_auto(rs_diags_fini) struct rs_diags diags = {0};
    const struct rs_node *root;

    if (read_all(file, &text, err) < 0)
        return rs_error_wrap(err, "%s", file);
    root = rs_node_parse(&arena, rs_buf_text(&text), rs_buf_len(&text), file, &diags);
    if (!root)
        return rs_diags_to_error(&diags, err);
    *ret = rs_node_json(root);
    return 0;
}

static int from_json(struct rs_config **ret, const json_t *json, struct rs_error *err)
{
    rs_auto(rs_arena_fini) struct rs_arena arena = {0};
    rs_auto(rs_config_freep) struct rs_config *c = NULL;
    rs_auto(rs_diags_fini) struct rs_diags diags = {0};
    const struct rs_node *root = rs_node_from_json(&arena, json, err);

    if (!root)
        return -1;
    if (from_node(&c, root, NULL, &diags) < 0 || diags.errors)
        return rs_diags_to_error(&diags, err);
    *ret = rs_steal(c);
    return 0;
}

int rs_config_from_import(struct rs_config **ret, const char *import_path, const char *name,
                          const char *route_prefix, const json_t *args, struct rs_error *err)
{
    json_t *app = json_object();
    rs_auto(rs_json_decrefp) json_t *json = json_pack("{s:[o]}", "applications", app);

    if (!rs_import_path_is_valid(import_path))
        return rs_error_set(err, RS_INVALID,
                            "expected a file, or an import path such as module:app, got \"%.200s\"",
                            import_path);
    if (!json || json_object_set_new(app, "import_path", json_string(import_path)) < 0 ||
        json_object_set_new(app, "name", json_string(name ? name : "default")) < 0 ||
        json_object_set_new(app, "route_prefix", json_string(route_prefix ? route_prefix : "/")) <
            0)
        return rs_error_set(err, RS_INVALID, "expected names in UTF-8");
    if (args)
        json_object_set_new(app, "args", json_deep_copy(args));
    return from_json(ret, json, err);
}

void rs_config_free(struct rs_config *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->app_count; i++) {
        free(c->apps[i].deployments);
        free(c->apps[i].failure);
        json_decref(c->apps[i].json);
        json_decref(c->apps[i].complete);
        json_decref(c->apps[i].graph);
    }
    free(c->apps);
    json_decref(c->json);
    json_decref(c->complete);
    free(c->file);
    free(c->dir);
    free(c);
}

/* --- the command line over the file -------------------------------------------------------------- */

static struct rs_config_app *only_app(struct rs_config *c, const char *what, struct rs_error *err)
{
    if (c->app_count == 1)
        return &c->apps[0];
    rs_error_set(err, RS_INVALID, "%s needs a file with one application; this one has %zu", what,
                 c->app_count);
    return NULL;
}

int rs_config_set_name(struct rs_config *c, const char *name, struct rs_error *err)
{
    struct rs_config_app *app = only_app(c, "an application name", err);

    if (!app)
        return -1;
    if (!*name)
        return rs_error_set(err, RS_INVALID, "Application names must be nonempty.");
    put(app->json, "name", name);
    put(app->complete, "name", name);
    app->name = rs_json_str(app->complete, "name", NULL);
    return 0;
}

int rs_config_set_route_prefix(struct rs_config *c, const char *route_prefix, struct rs_error *err)
{
    struct rs_config_app *app = only_app(c, "a route prefix", err);
    const char *problem = route_prefix ? rs_route_prefix_problem(route_prefix) : NULL;

    if (!app)
        return -1;
    if (problem)
        return rs_error_set(err, RS_INVALID, "Invalid route_prefix '%.200s', %s", route_prefix,
                            problem);
    put(app->json, "route_prefix", route_prefix);
    put(app->complete, "route_prefix", route_prefix);
    app->route_prefix = rs_json_str(app->complete, "route_prefix", NULL);
    return 0;
}

int rs_config_set_host(struct rs_config *c, const char *host, struct rs_error *err)
{
    json_t *http = json_object_get(c->complete, "http_options");

    if (!*host)
        return rs_error_set(err, RS_INVALID, "expected an address to listen on, got nothing");
    put(http, "host", host);
    c->http.host = rs_json_str(http, "host", NULL);
    return 0;
}

int rs_config_set_port(struct rs_config *c, int port, struct rs_error *err)
{
    if (port < 0 || port > 65535)
        return rs_error_set(err, RS_INVALID, "expected a port from 0 to 65535, got %d", port);
    json_object_set_new(json_object_get(c->complete, "http_options"), "port", json_integer(port));
    c->http.port = port;
    return 0;
}

static int set_app_dirs(struct rs_config *c, const char *dir, bool over, struct rs_error *err)
{
    rs_auto(rs_freep) char *cwd = working_dir();

    if (!*dir)
        return rs_error_set(err, RS_INVALID, "expected a folder, got nothing");
    for (size_t i = 0; i < c->app_count; i++) {
        json_t *ext = json_object_get(c->apps[i].complete, "rserve");

        if (!over && json_object_get(json_object_get(c->apps[i].json, "rserve"), "app_dir"))
            continue;
        put_path(ext, "app_dir", cwd, dir);
        c->apps[i].app_dir = rs_json_str(ext, "app_dir", NULL);
    }
    return 0;
}

int rs_config_set_app_dir(struct rs_config *c, const char *dir, struct rs_error *err)
{
    return set_app_dirs(c, dir, true, err);
}

int rs_config_default_app_dir(struct rs_config *c, const char *dir, struct rs_error *err)
{
    return set_app_dirs(c, dir, false, err);
}

/* --- questions ----------------------------------------------------------------------------------- */

const struct rs_config_app *rs_config_find_app(const struct rs_config *c, const char *name)
{
    for (size_t i = 0; i < c->app_count; i++) {
        if (strcmp(c->apps[i].name, name) == 0)
            return &c->apps[i];
    }
    return NULL;
}

const struct rs_config_deployment *rs_config_app_find(const struct rs_config_app *app,
                                                      const char *deployment)
{
    for (size_t i = 0; i < app->deployment_count; i++) {
        if (strcmp(app->deployments[i].name, deployment) == 0)
            return &app->deployments[i];
    }
    return NULL;
}

json_t *rs_config_app_echo(const struct rs_config_app *app)
{
    json_t *echo = json_deep_copy(app->json);

    put(echo, "name", app->name);
    if (!json_object_get(echo, "runtime_env"))
        json_object_set_new(echo, "runtime_env", json_object());
    return echo;
}

uint64_t rs_json_hash(const json_t *json)
{
    rs_auto(rs_freep) char *text =
        json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (const char *p = text; p && *p; p++)
        hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
    return hash;
}

uint64_t rs_config_app_code_hash(const struct rs_config_app *app)
{
    const json_t *ext = json_object_get(app->complete, "rserve");
    rs_auto(rs_json_decrefp) json_t *all = json_pack(
        "[O?, O, O, O?, O?, O?, O?]", json_object_get(app->complete, "import_path"), app->args,
        app->runtime_env, json_object_get(ext, "app_dir"), json_object_get(ext, "python"),
        json_object_get(ext, "start"), json_object_get(ext, "revision"));

    return rs_json_hash(all);
}

json_t *rs_config_app_code(const struct rs_config_app *app)
{
    const json_t *ext = json_object_get(app->complete, "rserve");

    return json_pack("{s:O?, s:O, s:O, s:O?, s:O?, s:O?, s:O?}", "import_path",
                     json_object_get(app->complete, "import_path"), "args", app->args,
                     "runtime_env", app->runtime_env, "rserve.app_dir",
                     json_object_get(ext, "app_dir"), "rserve.python",
                     json_object_get(ext, "python"), "rserve.start", json_object_get(ext, "start"),
                     "rserve.revision", json_object_get(ext, "revision"));
}

static json_t *seconds(int64_t ns)
{
    if (ns < 0)
        return json_null();
    return ns % 1000000000 == 0 ? json_integer(ns / 1000000000) : json_real((double)ns / 1e9);
}

json_t *rs_http_options_json(const struct rs_http_options *o)
{
    return json_pack("{s:s?, s:i, s:s, s:o, s:o, s:s?, s:s?, s:s?, s:s?}", "host", o->host, "port",
                     o->port, "root_path", o->root_path ? o->root_path : "", "request_timeout_s",
                     seconds(o->request_timeout), "keep_alive_timeout_s",
                     seconds(o->keep_alive_timeout), "ssl_keyfile", o->ssl[RS_SSL_KEYFILE],
                     "ssl_certfile", o->ssl[RS_SSL_CERTFILE], "ssl_keyfile_password",
                     o->ssl[RS_SSL_PASSWORD] ? "<redacted>" : NULL, "ssl_ca_certs",
                     o->ssl[RS_SSL_CA]);
}

json_t *rs_http_front_json(const struct rs_http_options *o)
{
    json_t *j = json_object();

    for (size_t i = 0; i < RS_SSL_COUNT; i++) {
        if (o->ssl[i])
            json_object_set_new(j, rs_ssl_names[i], json_string(o->ssl[i]));
    }
    if (o->proxy_protocol)
        json_object_set_new(j, "proxy_protocol", json_true());
    if (o->trusted_proxies)
        json_object_set_new(j, "trusted_proxies", json_deep_copy(o->trusted_proxies));
    return j;
}

json_t *rs_grpc_options_json(const struct rs_grpc_options *o)
{
    json_t *functions =
        o->servicer_functions ? json_deep_copy(o->servicer_functions) : json_array();

    return json_pack("{s:i, s:o, s:o, s:b}", "port", o->port, "grpc_servicer_functions", functions,
                     "request_timeout_s", seconds(o->request_timeout), "enable_reflection",
                     o->enable_reflection);
}

int rs_config_app_check_names(const struct rs_config_app *app, const char *const *names,
                              size_t count, struct rs_error *err)
{
    for (size_t i = 0; i < app->deployment_count; i++) {
        const struct rs_config_deployment *d = &app->deployments[i];
        rs_auto(rs_buf_fini) struct rs_buf list = {0};
        bool found = d->kind != RS_KIND_PYTHON;

        for (size_t k = 0; k < count; k++) {
            found = found || strcmp(names[k], d->name) == 0;
            rs_buf_printf(&list, "%s'%s'", k ? ", " : "", names[k]);
        }
        if (!found)
            return rs_error_set(err, RS_NOT_FOUND,
                                "ValueError: Deployment '%.60s' does not exist. Available: [%s]",
                                d->name, rs_buf_text(&list));
    }
    return 0;
}

void rs_logging_conf_fill(struct rs_logging_conf *out, const json_t *obj)
{
    rs_auto(rs_json_decrefp) json_t *complete = rs_complete(&rs_object_logging, obj);

    *out = (struct rs_logging_conf){0};
    rs_fill(&rs_object_logging, complete, out);
    out->logs_dir = rs_json_str(obj, "logs_dir", NULL); /* `complete` does not outlive this */
    out->extra_attrs = json_object_get(obj, "additional_log_standard_attrs");
}
