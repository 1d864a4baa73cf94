/* The shapes of /api/v1 as tables. An answer is what its table picks out of what the head knows, and
 * the OpenAPI document is made from the same tables: neither can say what the other does not.
 *
 * A type is written as "string", "integer", "number", "boolean", "object" (any members), "any", the name
 * of a schema ("Replica"), "[T]" (array), "{T}" (object whose members are T); "?" behind it: or null.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct rs_api_field {
    const char *name; /* NULL ends a table */
    const char *type;
    const char *help;
    const char *from;   /* where it is in the source, "rserve.in_flight"; NULL: as `name` */
    const char *values; /* "A|B": of a string, all there are; NULL: any */
    bool optional;      /* may be absent */
};

struct rs_api_schema {
    const char *name, *help;
    const struct rs_api_field *fields;
    bool open; /* has members that the table does not name: the source decides */
};

extern const struct rs_api_schema rs_api_schemas[];
extern const size_t rs_api_n_schemas;

const struct rs_api_schema *rs_api_schema_find(const char *name); /* NULL: there is none */
/* What schema `name` picks out of `source`; a new reference. */
json_t *rs_api_project(const char *name, const json_t *source);
/* JSON Schema (2020-12, as OpenAPI 3.1 has it) of a type, and of the schema itself. */
json_t *rs_api_type_json(const char *type, const char *values);
json_t *rs_api_schema_json(const struct rs_api_schema *schema);
