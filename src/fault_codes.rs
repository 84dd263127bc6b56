// One line a code: variant, name, class, meaning, what the operator does. Grouped by area, in the order of the street.
codes! {
    // ---- what was asked for
    ConfigUsage, "config.usage", Fatal, "The command line does not fit.", "See `stunetd help`.";
    ConfigNotAvailable, "config.not_available", Fatal, "This verb or format does not exist in this version.", "See `stunetd help` for what exists.";
    ConfigUnreadable, "config.unreadable", Fatal, "The configuration file can not be read.", "Check the path and its permissions.";
    ConfigInvalid, "config.invalid", Fatal, "The configuration is not valid.", "Correct the line named and run `stunetd check-config`.";
    ConfigUnknownKey, "config.unknown_key", Fatal, "The configuration has a key that does not exist.", "Correct the key; the nearest valid name is in the message.";
    ConfigInputMissing, "config.input_missing", Fatal, "The input path does not exist or can not be read.", "Check the path and its permissions.";
    // ---- input files
    InputNotDicom, "input.not_dicom", Poison, "There is no DICOM image in the input.", "Give a folder with CT or PET instances, or a NIfTI file.";
    InputEmpty, "input.empty_folder", Poison, "The input folder holds no files.", "Check the path; an export may not have finished.";
    InputNifti, "input.bad_nifti", Poison, "The NIfTI file can not be used.", "Check the file with the tool that wrote it.";
    // ---- models
    ModelMissing, "model.missing", Poison, "The model folder or a file in it is missing.", "Import the model again with `stunetd model import`.";
    ModelManifest, "model.bad_manifest", Poison, "The model's manifest can not be used.", "Import the model again with `stunetd model import`.";
    ModelDigest, "model.digest_mismatch", Poison, "The weights are not the ones that the manifest names.", "Restore the model folder from its source; never edit it by hand.";
    ModelMismatch, "model.shape_mismatch", Poison, "The weights do not fit the architecture.", "Import the model again from a complete checkpoint.";
    ModelChannels, "model.channel_mismatch", Poison, "The image has another number of channels than the model.", "Choose a model made for this kind of input.";
    ModelInput, "model.bad_input", Poison, "The tensor given to the network does not fit it.", "Give a tensor [N, C, X, Y, Z] whose axes are divisible by the strides in the manifest.";
    // ---- checkpoints
    CheckpointNotOne, "checkpoint.not_a_checkpoint", Poison, "The file is not a PyTorch checkpoint.", "Check the download; the file should start with the letters PK.";
    CheckpointHtml, "checkpoint.html_page", Poison, "The file is a web page, not weights.", "Download the weights again; a login or error page was saved instead.";
    CheckpointTruncated, "checkpoint.truncated", Poison, "The checkpoint ends too early.", "Download or copy the file again and compare its size.";
    CheckpointForbidden, "checkpoint.forbidden_global", Poison, "The checkpoint asks for code that is not on the allow-list.", "Do not trust this file; get it from its original source.";
    CheckpointMalformed, "checkpoint.malformed", Poison, "The checkpoint's structure is not understood.", "Get the file from its original source.";
    CheckpointLimit, "checkpoint.limit_exceeded", Poison, "The checkpoint exceeds a safety limit.", "Get the file from its original source.";
    CheckpointPlans, "checkpoint.bad_plans", Poison, "The plans beside the weights are missing or can not be used.", "Put plans (.model.pkl, or plans.json and dataset.json) beside the weights.";
    CheckpointUnsupported, "checkpoint.unsupported", Poison, "The checkpoint needs something that is not supported.", "See the message for which feature; only 3-D full-resolution STU-Net is supported.";
    // ---- memory, disk, device
    MemoryTooLarge, "memory.volume_too_large", Poison, "The volume needs more memory than is configured.", "Raise `host_memory`, or use a smaller series.";
    DeviceOutOfMemory, "device.out_of_memory", Retryable, "The device ran out of memory.", "Lower `device_memory` use, or choose a smaller model.";
    DeviceUnavailable, "device.unavailable", Fatal, "The device asked for can not be used.", "Run `stunetd doctor --cuda`, or choose `--device cpu`.";
    DiskFull, "disk.full", Retryable, "The disk is full.", "Free space; work goes on by itself.";
    DiskUnwritable, "disk.unwritable", Retryable, "A file or folder can not be written.", "Check the folder's permissions and mount.";
    DiskUnreadable, "disk.unreadable", Retryable, "A file can not be read.", "Check the file's permissions and mount.";
    // ---- ourselves
    InternalBug, "internal.bug", Poison, "A step that can not fail has failed.", "Report it with the log lines around it.";
    InternalTorch, "internal.torch", Poison, "libtorch reported an error.", "See the message; run `stunetd doctor`.";
    InternalShutdown, "internal.shutdown", Retryable, "The daemon is shutting down.", "Nothing; the work is taken up again at the next start.";
}
