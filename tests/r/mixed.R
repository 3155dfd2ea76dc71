# The crossed mixed model of slopes by lme4, and Satterthwaite's degrees of freedom by lmerTest.
# Usage: Rscript mixed.R rows.csv out.csv component ...; components as in `terms` below.
suppressPackageStartupMessages({library(lme4); library(lmerTest)})
arguments <- commandArgs(trailingOnly = TRUE)
rows <- read.csv(arguments[1])
rows$focal <- rows$moderator * rows$x
for (name in c("cell", "start", "language", "target_language", "task_language", "pair_language", "checkpoint",
               "trunk")) rows[[name]] <- factor(rows[[name]])
terms <- c(
  language = "(0 + x | language)",
  "target x language" = "(0 + x | target_language)",
  "intermediate x language" = "(0 + x | task_language)",
  "pair x language" = "(0 + x | pair_language)",
  "checkpoint tilt" = "(0 + moderator | checkpoint)",
  "trunk slope tilt" = "(0 + focal | trunk)",
  "target-run tilt" = "(0 + moderator | cell)"
)
formula <- as.formula(paste("gain ~ 0 + cell + start + focal +", paste(terms[arguments[-(1:2)]], collapse = " + ")))
fit <- lmerTest::lmer(formula, rows, REML = TRUE,
                      control = lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e6),
                                            check.rankX = "silent.drop.cols"))
coefficient <- summary(fit)$coefficients["focal", ]
design <- getME(fit, "X")
design <- design[, colnames(design) != "focal"]
variances <- as.data.frame(VarCorr(fit))$vcov
# lme4 leaves the determinant of the fixed effects' own cross-product out of the restricted likelihood.
likelihood <- as.numeric(logLik(fit)) + 0.5 * as.numeric(determinant(crossprod(design))$modulus)
result <- c(coefficient["Estimate"], coefficient["Std. Error"], coefficient["df"], likelihood, variances)
groups <- as.data.frame(VarCorr(fit))$grp
write.csv(data.frame(name = c("estimate", "se", "df", "log_likelihood", groups), value = result), arguments[2],
          row.names = FALSE)
