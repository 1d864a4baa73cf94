/* Rules that bind several options. Those that Ray checks when it reads a file stand in the _file
 * functions and see what the file says; the others see the merged options of a deployment.
 */
#include "core/config/fields_foresight.h"

#include "core/base/alloc.h"
#include "core/base/map.h"
#include "core/resource/resources.h"

#include <stdlib.h>
#include <string.h>

static const json_t *get(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);

    return json_is_null(v) ? NULL : v;
}

/* The place is that of `key` in `map`, of the map itself, or unknown. */
static void RS_PRINTF(4, 5)
    fail_at(struct rs_walk *w, const struct rs_node *map, const char *key, const char *fmt, ...)
{
    const struct rs_node_entry *e = map ? rs_node_get(map, key) : NULL;
    size_t back = rs_walk_key(w, key);
    rs_auto(rs_freep) char *text = NULL;
    va_list args;

    va_start(args, fmt);
    text = rs_vasprintf(fmt, args);
    va_end(args);
    rs_walk_error(w,
                  e     ? e->line
                  : map ? map->line
                        : 0,
                  e     ? e->column
                  : map ? map->column
                        : 0,
                  "%s", text);
    rs_walk_back(w, back);
}

static bool fixed_replicas(const json_t *options)
{
    return json_is_integer(get(options, "num_replicas"));
}

static bool has_autoscaling(const json_t *options)
{
    const char *replicas = rs_json_str(options, "num_replicas", "");

    return strcmp(replicas, "auto") == 0 || get(options, "autoscaling_config");
}

/* --- autoscaling --------------------------------------------------------------------------------- */

/* `given` may be partial; `automatic`: num_replicas is "auto". */
static void autoscaling_bounds(struct rs_walk *w, const json_t *given, bool automatic,
                               const struct rs_node *map)
{
    int64_t min = rs_json_int(given, "min_replicas", 1);
    int64_t max = rs_json_int(given, "max_replicas", automatic ? 100 : 1);
    int64_t initial = rs_json_int(given, "initial_replicas", min);

    if (max < min)
        fail_at(w, map, get(given, "min_replicas") ? "min_replicas" : "max_replicas",
                "max_replicas (%lld) must be greater than or equal to min_replicas (%lld)!",
                (long long)max, (long long)min);
    else if (initial < min)
        fail_at(w, map, "initial_replicas",
                "min_replicas (%lld) must be less than or equal to initial_replicas (%lld)!",
                (long long)min, (long long)initial);
    else if (initial > max)
        fail_at(w, map, "initial_replicas",
                "max_replicas (%lld) must be greater than or equal to initial_replicas (%lld)!",
                (long long)max, (long long)initial);
}

static void autoscaling(struct rs_walk *w, const json_t *options, const struct rs_node *map)
{
    const json_t *given = get(options, "autoscaling_config");
    const struct rs_node_entry *e = map ? rs_node_get(map, "autoscaling_config") : NULL;
    size_t back;

    if (!given)
        return;
    back = rs_walk_key(w, "autoscaling_config");
    w->deploy++;
    autoscaling_bounds(w, given, strcmp(rs_json_str(options, "num_replicas", ""), "auto") == 0,
                       e ? e->value : NULL);
    w->deploy--;
    rs_walk_back(w, back);
}

/* What is allowed and yet surely not meant. */
static void autoscaling_doubts(struct rs_walk *w, const json_t *options)
{
    const json_t *given = get(options, "autoscaling_config");
    int64_t max_ongoing = rs_json_int(options, "max_ongoing_requests", 5);
    double target = rs_json_num(given, "target_ongoing_requests", 2);
    double window = rs_json_num(given, "look_back_period_s", 30);
    double interval = rs_json_num(given, "metrics_interval_s", 10);

    if (given && (double)max_ongoing < target)
        rs_walk_warn(w, 0, 0,
                     "max_ongoing_requests (%lld) is below target_ongoing_requests (%g): "
                     "autoscaling will never happen",
                     (long long)max_ongoing, target);
    if (given && window <= interval)
        rs_walk_warn(w, 0, 0,
                     "look_back_period_s (%g) should be greater than metrics_interval_s (%g)",
                     window, interval);
}

/* --- placement and gangs ------------------------------------------------------------------------- */

static void placement(struct rs_walk *w, const json_t *o)
{
    const json_t *bundles = get(o, "placement_group_bundles");
    const json_t *selectors = get(o, "placement_group_bundle_label_selector");
    const json_t *gang = get(o, "gang_scheduling_config");
    size_t n = json_array_size(bundles), labels = json_array_size(selectors);

    if (get(o, "placement_group_strategy") && !bundles && !gang)
        fail_at(w, NULL, "placement_group_strategy",
                "If `placement_group_strategy` is provided, `placement_group_bundles` must also be "
                "provided.");
    if (selectors && !bundles)
        fail_at(w, NULL, "placement_group_bundle_label_selector",
                "If `placement_group_bundle_label_selector` is provided, "
                "`placement_group_bundles` must also be provided.");
    else if (selectors && labels != 1 && labels != n)
        fail_at(w, NULL, "placement_group_bundle_label_selector",
                "expected 1 selector or one for each of the %zu bundles, got %zu", n, labels);
    if (bundles && n == 0)
        fail_at(w, NULL, "placement_group_bundles", "expected at least one bundle, got none");
    if (get(o, "max_replicas_per_node") && bundles)
        fail_at(w, NULL, "max_replicas_per_node",
                "Setting max_replicas_per_node is not allowed when placement_group_bundles is "
                "provided.");
    if (get(o, "max_replicas_per_node") && gang)
        fail_at(w, NULL, "max_replicas_per_node",
                "Setting max_replicas_per_node is not allowed when gang_scheduling_config is "
                "provided.");
    if (get(o, "placement_group_strategy") && gang)
        fail_at(w, NULL, "placement_group_strategy",
                "Setting placement_group_strategy is not allowed when gang_scheduling_config is "
                "provided; use gang_placement_strategy.");
}

/* A replica runs in the first bundle, so that must hold what it needs. */
static void first_bundle(struct rs_walk *w, const json_t *o, const struct rs_resources *need)
{
    const json_t *first = json_array_get(get(o, "placement_group_bundles"), 0);
    struct rs_resources have = {0};
    struct rs_error err = {0};
    rs_auto(rs_buf_fini) struct rs_buf text = {0};

    if (!first)
        return;
    if (rs_resources_from_json(&have, first, &err) < 0) {
        fail_at(w, NULL, "placement_group_bundles", "[0].%s", err.msg);
        return;
    }
    if (!rs_resources_fits(&have, need)) {
        rs_buf_puts(&text, "the replica runs in the first bundle, which holds ");
        rs_resources_print(&text, &have);
        rs_buf_puts(&text, "; it needs ");
        rs_resources_print(&text, need);
        fail_at(w, NULL, "placement_group_bundles", "%s", rs_buf_text(&text));
    }
    rs_resources_fini(&have);
}

static void gang_multiple(struct rs_walk *w, const json_t *from, const char *key, int64_t size,
                          int64_t unsaid)
{
    int64_t n = rs_json_int(from, key, unsaid);

    if (n % size != 0)
        fail_at(w, NULL, key, "expected a multiple of gang_size (%lld), got %lld", (long long)size,
                (long long)n);
}

static void gang(struct rs_walk *w, const json_t *o)
{
    const json_t *conf = get(o, "gang_scheduling_config");
    const json_t *scaling = get(o, "autoscaling_config");
    int64_t size = rs_json_int(conf, "gang_size", 1);

    if (!conf || size < 1)
        return;
    if (!scaling) {
        gang_multiple(w, o, "num_replicas", size, 1);
        return;
    }
    if (rs_json_int(scaling, "min_replicas", 1) == 0)
        fail_at(w, NULL, "autoscaling_config",
                "min_replicas: 0 is not possible with gang_scheduling_config");
    gang_multiple(w, scaling, "min_replicas", size, size);
    gang_multiple(w, scaling, "max_replicas", size, size);
    gang_multiple(w, scaling, "initial_replicas", size, size);
}

static void actor_names(struct rs_walk *w, const json_t *o)
{
    const json_t *actors = get(o, "deployment_actors");
    struct rs_map seen = {0};

    for (size_t i = 0; i < json_array_size(actors); i++) {
        json_t *actor = json_array_get(actors, i);
        const char *name = rs_json_str(actor, "name", NULL);

        if (name && rs_map_put(&seen, name, actor))
            fail_at(w, NULL, "deployment_actors", "two actors are named \"%.60s\"", name);
    }
    rs_map_fini(&seen);
}

/* --- kinds exec and http ------------------------------------------------------------------------- */

static bool mentions(const json_t *v, const char *what)
{
    const char *key;
    json_t *item;

    if (json_is_string(v))
        return strstr(json_string_value(v), what) != NULL;
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (mentions(json_array_get(v, i), what))
            return true;
    }
    json_object_foreach ((json_t *)(uintptr_t)v, key, item) {
        if (mentions(item, what))
            return true;
    }
    return false;
}

static void http_address(struct rs_walk *w, const json_t *options, const json_t *ext,
                         const struct rs_node *map)
{
    const json_t *command = get(ext, "command"), *env = get(ext, "env");
    bool given = mentions(command, "{port}") || mentions(env, "{port}") ||
                 mentions(command, "{socket}") || mentions(env, "{socket}");

    if (!given && !get(ext, "port"))
        fail_at(w, map, "command",
                "kind http needs {port} or {socket} in the command or its env, or a fixed port");
    if (!given && get(ext, "port") &&
        (rs_json_int(options, "num_replicas", 1) > 1 || has_autoscaling(options)))
        fail_at(w, map, "port", "a fixed port serves one replica; put {port} into the command");
}

static void extension(struct rs_walk *w, const json_t *options, const struct rs_node *map)
{
    static const char *const foreign[] = {"command", "cwd", "port", "ready"};
    const json_t *ext = get(options, "rserve");
    const char *kind = rs_json_str(ext, "kind", "python");
    const struct rs_node_entry *e = map ? rs_node_get(map, "rserve") : NULL;
    const struct rs_node *at = e ? e->value : map;
    size_t back;

    if (!ext)
        return;
    back = rs_walk_key(w, "rserve");
    if (strcmp(kind, "python") == 0) {
        for (size_t i = 0; map && i < RS_COUNT(foreign); i++) {
            if (get(ext, foreign[i]))
                fail_at(w, at, foreign[i], "is for kinds exec and http; kind is python");
        }
    } else if (!get(ext, "command") && (!at || !rs_node_get(at, "command"))) {
        fail_at(w, at, "command", "Field required for kind %s", kind);
    } else if (strcmp(kind, "http") == 0 && get(ext, "command")) {
        http_address(w, options, ext, at);
    }
    rs_walk_back(w, back);
}

/* --- what callers use ---------------------------------------------------------------------------- */

void rs_rules_deployment_file(struct rs_walk *w, const json_t *options, const struct rs_node *map)
{
    const json_t *user = get(options, "user_config");

    if (user && !json_is_object(user))
        fail_at(w, map, "user_config", "expected a mapping, got a %s",
                json_is_array(user) ? "list" : "single value");
    if (fixed_replicas(options) && get(options, "autoscaling_config"))
        fail_at(w, map, "num_replicas",
                "Manually setting num_replicas is not allowed when autoscaling_config is "
                "provided.");
    if (get(options, "max_replicas_per_node") && get(options, "placement_group_bundles"))
        fail_at(w, map, "max_replicas_per_node",
                "Setting max_replicas_per_node is not allowed when placement_group_bundles is "
                "provided.");
    autoscaling(w, options, map);
    rs_rules_zones(w, map);
    extension(w, options, map);
}

void rs_rules_deployment(struct rs_walk *w, const json_t *options)
{
    struct rs_resources need = {0};
    struct rs_error err = {0};

    autoscaling(w, options, NULL);
    autoscaling_doubts(w, options);
    rs_rules_foresight(w, options);
    placement(w, options);
    gang(w, options);
    actor_names(w, options);
    extension(w, options, NULL);
    if (rs_resources_from_actor_options(&need, get(options, "ray_actor_options"), &err) < 0)
        fail_at(w, NULL, "ray_actor_options", "%s", err.msg);
    else
        first_bundle(w, options, &need);
    rs_resources_fini(&need);
}

/* Every deployment of the list names itself differently. */
static void deployment_names(struct rs_walk *w, const json_t *list, const struct rs_node *node)
{
    struct rs_map seen = {0};

    for (size_t i = 0; node && i < node->count && i < json_array_size(list); i++) {
        json_t *d = json_array_get(list, i);
        const char *name = rs_json_str(d, "name", NULL);

        if (name && rs_map_put(&seen, name, d)) {
            size_t back = rs_walk_index(w, i);

            fail_at(w, node->items[i], "name", "two entries are for deployment \"%.60s\"", name);
            rs_walk_back(w, back);
        }
    }
    rs_map_fini(&seen);
}

/* The first Python deployment of the file, or NULL: then the file declares all there is. */
static const char *python_deployment(const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *d = json_array_get(list, i);

        if (strcmp(rs_json_str(get(d, "rserve"), "kind", "python"), "python") == 0)
            return rs_json_str(d, "name", "");
    }
    return NULL;
}

static void import_path(struct rs_walk *w, const json_t *app, const struct rs_node *map)
{
    const json_t *list = get(app, "deployments");
    const char *python = python_deployment(list);
    const char *ingress = rs_json_str(get(app, "rserve"), "ingress", NULL);
    bool known = !ingress;

    if (rs_node_get(map, "import_path"))
        return;
    if (json_array_size(list) == 0) {
        fail_at(w, map, "import_path", "Field required");
        return;
    }
    if (python) {
        fail_at(w, map, "import_path",
                "Field required, since deployment \"%.60s\" is not of kind exec or http", python);
        return;
    }
    for (size_t i = 0; i < json_array_size(list) && !known; i++)
        known = strcmp(rs_json_str(json_array_get(list, i), "name", ""), ingress) == 0;
    if (!known) {
        const struct rs_node_entry *e = rs_node_get(map, "rserve");
        size_t back = rs_walk_key(w, "rserve");

        fail_at(w, e->value, "ingress", "no deployment is named \"%.60s\"", ingress);
        rs_walk_back(w, back);
    }
}

static void external_scaler(struct rs_walk *w, const json_t *app, const struct rs_node *map)
{
    const json_t *list = get(app, "deployments");
    rs_auto(rs_buf_fini) struct rs_buf names = {0};

    if (!rs_json_bool(app, "external_scaler_enabled", false))
        return;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *d = json_array_get(list, i);

        if (has_autoscaling(d))
            rs_buf_printf(&names, "%s\"%.60s\"", rs_buf_len(&names) ? ", " : "",
                          rs_json_str(d, "name", ""));
    }
    if (rs_buf_len(&names))
        fail_at(w, map, "external_scaler_enabled",
                "external_scaler_enabled is set to True, but the following deployment(s) have "
                "autoscaling configured: %s",
                rs_buf_text(&names));
}

void rs_rules_app_file(struct rs_walk *w, const json_t *app, const struct rs_node *map)
{
    const struct rs_node_entry *list = rs_node_get(map, "deployments");
    size_t back = rs_walk_key(w, "deployments");

    if (list && list->value->kind == RS_NODE_LIST)
        deployment_names(w, get(app, "deployments"), list->value);
    rs_walk_back(w, back);
    import_path(w, app, map);
    rs_rules_routes(w, app, map);
    external_scaler(w, app, map);
}

static void ssl_pair(struct rs_walk *w, const json_t *http, const struct rs_node *map)
{
    const struct rs_node_entry *e = rs_node_get(map, "http_options");
    size_t back = rs_walk_key(w, "http_options");
    bool key = get(http, "ssl_keyfile"), cert = get(http, "ssl_certfile");

    if (key != cert && e)
        fail_at(w, e->value, key ? "ssl_keyfile" : "ssl_certfile",
                "Both ssl_keyfile and ssl_certfile must be provided together to enable HTTPS.");
    rs_walk_back(w, back);
}

/* Whoever may send a PROXY header may be anyone. */
static void proxy_header(struct rs_walk *w, const json_t *http, const struct rs_node *map)
{
    const struct rs_node_entry *e = rs_node_get(map, "http_options");
    const json_t *rserve = get(http, "rserve");
    size_t back = rs_walk_key(w, "http_options.rserve");

    if (e && json_is_true(get(rserve, "proxy_protocol")) &&
        !json_array_size(get(rserve, "trusted_proxies")))
        fail_at(w, rs_node_get(e->value, "rserve")->value, "proxy_protocol",
                "expected trusted_proxies beside it: whose PROXY headers are to be believed?");
    rs_walk_back(w, back);
}

/* As written, also when it is not valid; NULL: not a text. */
static const char *text_of(const struct rs_node *app, const char *key, const char *def)
{
    const struct rs_node_entry *e = rs_node_get(app, key);

    if (!e)
        return def;
    return e->value->kind == RS_NODE_TEXT ? e->value->text : NULL;
}

void rs_rules_config_file(struct rs_walk *w, const json_t *config, const struct rs_node *map)
{
    const struct rs_node_entry *e = rs_node_get(map, "applications");
    const json_t *apps = get(config, "applications");
    struct rs_map names = {0}, routes = {0};
    size_t back;

    ssl_pair(w, get(config, "http_options"), map);
    proxy_header(w, get(config, "http_options"), map);
    back = rs_walk_key(w, "applications");
    for (size_t i = 0; e && i < e->value->count && i < json_array_size(apps); i++) {
        json_t *app = json_array_get(apps, i);
        const char *name = text_of(e->value->items[i], "name", "default");
        const char *prefix = text_of(e->value->items[i], "route_prefix", "/");
        size_t here = rs_walk_index(w, i);

        if (name && rs_map_put(&names, name, app))
            fail_at(w, e->value->items[i], "name",
                    "Found multiple configs for application \"%.60s\". Please remove all "
                    "duplicates.",
                    name);
        if (prefix && rs_map_put(&routes, prefix, app))
            fail_at(w, e->value->items[i], "route_prefix",
                    "Found duplicate applications for route prefix \"%.100s\". Please ensure each "
                    "application's route_prefix is unique.",
                    prefix);
        rs_walk_back(w, here);
    }
    rs_walk_back(w, back);
    rs_map_fini(&names);
    rs_map_fini(&routes);
}
