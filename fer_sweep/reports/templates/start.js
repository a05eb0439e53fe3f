// ---- figures are drawn when they come near ----

const plots = document.querySelectorAll(".plot");
const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    draw(target);
  }
}, { rootMargin: "300px" });
plots.forEach((plot) => near.observe(plot));
addEventListener("beforeprint", () => plots.forEach((plot) => { if (!drawn.has(plot)) draw(plot); }));
