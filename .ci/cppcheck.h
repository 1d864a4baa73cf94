/* What cppcheck is told of headers that it does not read: the loops of jansson. */
#pragma once

#define json_array_foreach(array, index, value)                                                    \
    for (index = 0; (value = json_array_get(array, index)); index++)
#define json_object_foreach(object, key, value)                                                    \
    for (void *it_ = json_object_iter(object);                                                     \
         (key = json_object_iter_key(it_)) && (value = json_object_iter_value(it_));               \
         it_ = json_object_iter_next(object, it_))
#define json_object_foreach_safe(object, next, key, value)                                         \
    for (next = json_object_iter(object);                                                          \
         (key = json_object_iter_key(next)) && (value = json_object_iter_value(next));             \
         next = json_object_iter_next(object, next))
