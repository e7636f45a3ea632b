// Each method's row of the table in registry.cc. The functions are defined in the methods' files.
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
