// The functions by which each method's file enters the table of registry.cc.
#pragma once

#include "cache/policy/entry.h"

namespace tessera {

PolicyEntry NonePolicy();
// Selectors.
PolicyEntry WindowPolicy();
PolicyEntry RandomPolicy();
PolicyEntry FlashCachePolicy();
PolicyEntry SnapKvPolicy();
PolicyEntry H2oPolicy();
// Stores.
PolicyEntry RtnPolicy();
PolicyEntry HadamardPolicy();
PolicyEntry KiviPolicy();
PolicyEntry AkvqPolicy();
PolicyEntry CalibQuantPolicy();

}  // namespace tessera
