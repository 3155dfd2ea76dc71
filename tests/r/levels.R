# Levels at a budget by lme4: low - high within cells, or the mean of the targets' means. Degrees of freedom by lmerTest.
# Usage: Rscript levels.R rows.csv out.csv difference|mean
suppressPackageStartupMessages({library(lme4); library(lmerTest)})
arguments <- commandArgs(trailingOnly = TRUE)
rows <- read.csv(arguments[1])
for (name in c("target", "language", "target_language", "seed", "cell")) rows[[name]] <- factor(rows[[name]])
terms <- "(1 | language) + (1 | target_language) + (0 + moderator | seed) + (0 + moderator | cell)"
fixed <- if (arguments[3] == "difference") "gain ~ 0 + moderator + cell +" else "gain ~ 0 + target +"
fit <- lmerTest::lmer(as.formula(paste(fixed, terms)), rows, REML = TRUE,
                      control = lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e6)))
size <- length(fixef(fit))
contrast <- if (arguments[3] == "difference") c(1, rep(0, size - 1)) else rep(1 / size, size)
found <- lmerTest::contest1D(fit, contrast)
variances <- as.data.frame(VarCorr(fit))
result <- c(found[["Estimate"]], found[["Std. Error"]], found[["df"]], variances$vcov)
write.csv(data.frame(name = c("estimate", "se", "df", variances$grp), value = result), arguments[2], row.names = FALSE)
