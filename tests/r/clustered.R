# Clustered variances of least squares by sandwich and clubSandwich.
# Usage: Rscript clustered.R rows.csv out.csv
suppressPackageStartupMessages({library(sandwich); library(clubSandwich)})
arguments <- commandArgs(trailingOnly = TRUE)
rows <- read.csv(arguments[1])
rows$focal <- rows$moderator * rows$x
fit <- lm(gain ~ 0 + factor(start) + factor(pair):x + focal, rows)
kept <- which(names(coef(fit)) == "focal")
clusters <- rows[, c("language", "checkpoint")]
variance <- function(type, adjust) {
  found <- vcovCL(fit, cluster = clusters, type = type, cadjust = adjust, multi0 = FALSE)
  found["focal", "focal"]
}
one_way <- function(cluster) vcovCL(fit, cluster = cluster, type = "HC0", cadjust = FALSE)["focal", "focal"]
# CR2's clusters are used up by the intercepts that lie within them; a generalised inverse copes.
bell_mccaffrey <- function(cluster) {
  # The covariance over the observed coefficients only: lm drops aliased columns.
  vcovCR(fit, cluster = cluster, type = "CR2")["focal", "focal"]
}
result <- c(
  estimate = unname(coef(fit)[kept]),
  two_way = variance("HC0", FALSE),
  language = one_way(rows$language),
  checkpoint = one_way(rows$checkpoint),
  language_cr2 = bell_mccaffrey(rows$language),
  checkpoint_cr2 = bell_mccaffrey(rows$checkpoint)
)
write.csv(data.frame(name = names(result), value = unname(result)), arguments[2], row.names = FALSE)
