/* The version that every program here shows. */
#ifndef BASE_VERSION_H
#define BASE_VERSION_H

#define DOPPEL_VERSION "0.1.0"

#endif
