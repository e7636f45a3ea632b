#include "vision/tower/projector.h"

#include "base/base.h"
#include "kernels/load_weights.h"

namespace tessera {

absl::StatusOr<Projector> Projector::Load(int64_t vision_hidden, int64_t text_hidden,
                                          Activation activation, TensorSource& source, Ops& ops,
                                          const std::string& prefix) {
  Projector p;
  p.ops_ = &ops;
  p.activation_ = activation;
  ASSIGN_OR_RETURN(p.linear_1_, LoadLinear(source, ops, {{prefix + ".linear_1", text_hidden}},
                                           {vision_hidden}, BiasRule::kOptional));
  ASSIGN_OR_RETURN(p.linear_2_, LoadLinear(source, ops, {{prefix + ".linear_2", text_hidden}},
                                           {text_hidden}, BiasRule::kOptional));
  return p;
}

void Projector::Forward(const float* x, int64_t rows, float* out) {
  if (rows > hidden_rows_) {
    hidden_ = ops_->Allocate(rows * linear_1_.out * static_cast<int64_t>(sizeof(float)));
    hidden_rows_ = rows;
  }
  float* hidden = reinterpret_cast<float*>(hidden_.get());
  ops_->MatMul(linear_1_, x, rows, hidden, activation_);
  ops_->MatMul(linear_2_, hidden, rows, out);
}

}  // namespace tessera
