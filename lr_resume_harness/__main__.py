"""``python -m lr_resume_harness``, where the script ``lr-resume-harness`` is not on the PATH."""

from lr_resume_harness import main

if __name__ == "__main__":
    main()
