#include "net/api/schema.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"
#include "core/base/json.h"

#include <string.h>

const struct rs_api_schema *rs_api_schema_find(const char *name)
{
    for (size_t i = 0; i < rs_api_n_schemas; i++)
        if (strcmp(rs_api_schemas[i].name, name) == 0)
            return &rs_api_schemas[i];
    return NULL;
}

/* --- what a table picks -------------------------------------------------------------------------- */

static const json_t *at_path(const json_t *source, const char *path)
{
    while (source) {
        rs_auto(rs_freep) char *name = rs_strndup(path, strcspn(path, "."));

        source = json_object_get(source, name);
        path += strlen(name);
        if (!*path++)
            return source;
    }
    return NULL;
}

static json_t *project_type(const char *type, const json_t *value);

/* "T]" or "T}": the type between, a copy. */
static char *inner(const char *type)
{
    return rs_strndup(type, strcspn(type, "]}"));
}

static json_t *project_list(const char *type, const json_t *value)
{
    rs_auto(rs_freep) char *of = inner(type);
    json_t *list = json_array(), *v;
    const char *key;
    size_t i;

    json_array_foreach ((json_t *)(uintptr_t)value, i, v)
        json_array_append_new(list, project_type(of, v));
    json_object_foreach ((json_t *)(uintptr_t)value, key, v)
        json_array_append_new(list, project_type(of, v));
    return list;
}

static json_t *project_map(const char *type, const json_t *value)
{
    rs_auto(rs_freep) char *of = inner(type);
    json_t *map = json_object(), *v;
    const char *key;

    json_object_foreach ((json_t *)(uintptr_t)value, key, v)
        json_object_set_new(map, key, project_type(of, v));
    return map;
}

static bool is_schema(const char *type)
{
    return *type >= 'A' && *type <= 'Z';
}

static json_t *project_type(const char *type, const json_t *value)
{
    rs_auto(rs_freep) char *name = NULL;

    if (!value || json_is_null(value))
        return json_null();
    if (type[0] == '[')
        return project_list(type + 1, value);
    if (type[0] == '{')
        return project_map(type + 1, value);
    if (!is_schema(type))
        return json_incref((json_t *)(uintptr_t)value);
    name = rs_strndup(type, strcspn(type, "?"));
    return rs_api_project(name, value);
}

json_t *rs_api_project(const char *name, const json_t *source)
{
    const struct rs_api_schema *schema = rs_api_schema_find(name);
    json_t *out = json_object();

    if (!schema || schema->open) {
        json_object_update(out, (json_t *)(uintptr_t)source);
        return out;
    }
    for (const struct rs_api_field *f = schema->fields; f->name; f++) {
        const json_t *value = at_path(source, f->from ? f->from : f->name);

        if (value || !f->optional)
            json_object_set_new(out, f->name, project_type(f->type, value));
    }
    return out;
}

/* --- as JSON Schema ------------------------------------------------------------------------------ */

static json_t *or_null(json_t *schema)
{
    json_t *type = json_object_get(schema, "type");

    if (!type)
        return json_pack("{s:[o, {s:s}]}", "anyOf", schema, "type", "null");
    json_object_set_new(schema, "type", json_pack("[O, s]", type, "null"));
    return schema;
}

static json_t *enum_of(const char *values)
{
    json_t *list = json_array();

    while (*values) {
        size_t n = strcspn(values, "|");

        json_array_append_new(list, json_stringn(values, n));
        values += n;
        values += *values == '|';
    }
    return list;
}

static json_t *plain(const char *type)
{
    rs_auto(rs_freep) char *of = NULL;

    if (strcmp(type, "any") == 0)
        return json_object();
    if (type[0] != '[' && type[0] != '{' && !is_schema(type))
        return json_pack("{s:s}", "type", type);
    if (is_schema(type)) {
        of = rs_asprintf("#/components/schemas/%s", type);
        return json_pack("{s:s}", "$ref", of);
    }
    of = inner(type + 1);
    if (type[0] == '[')
        return json_pack("{s:s, s:o}", "type", "array", "items", rs_api_type_json(of, NULL));
    return json_pack("{s:s, s:o}", "type", "object", "additionalProperties",
                     rs_api_type_json(of, NULL));
}

json_t *rs_api_type_json(const char *type, const char *values)
{
    size_t n = strlen(type);
    bool nullable = type[n - 1] == '?';
    rs_auto(rs_freep) char *bare = rs_strndup(type, n - nullable);
    json_t *schema = plain(bare);

    if (values)
        json_object_set_new(schema, "enum", enum_of(values));
    return nullable ? or_null(schema) : schema;
}

json_t *rs_api_schema_json(const struct rs_api_schema *schema)
{
    json_t *members = json_object(), *required = json_array();

    for (const struct rs_api_field *f = schema->fields; f->name; f++) {
        json_t *type = rs_api_type_json(f->type, f->values);

        if (f->help)
            json_object_set_new(type, "description", json_string(f->help));
        json_object_set_new(members, f->name, type);
        if (!f->optional)
            json_array_append_new(required, json_string(f->name));
    }
    return json_pack("{s:s, s:s, s:o, s:o, s:b}", "type", "object", "description", schema->help,
                     "properties", members, "required", required, "additionalProperties",
                     schema->open);
}
