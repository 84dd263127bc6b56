// One line a code: variant, name, class, meaning, what the operator does. Grouped by area, in the order of the street.
codes! {
    // ---- what was asked for
    ConfigUsage, "config.usage", Fatal, "The command line does not fit.", "See `stunetd help`.";
    ConfigNotAvailable, "config.not_available", Fatal, "This verb or format does not exist in this version.", "See `stunetd help` for what exists.";
    ConfigUnreadable, "config.unreadable", Fatal, "The configuration file can not be read.", "Check the path and its permissions.";
    ConfigInvalid, "config.invalid", Fatal, "The configuration is not valid.", "Correct the line named and run `stunetd check-config`.";
    ConfigUnknownKey, "config.unknown_key", Fatal, "The configuration has a key that does not exist.", "Correct the key; the nearest valid name is in the message.";
    ConfigListen, "config.can_not_listen", Fatal, "An address to listen on can not be used.", "Choose another `http.listen` or `dimse.listen`, or end the program that uses it.";
    ConfigInputMissing, "config.input_missing", Fatal, "The input path does not exist or can not be read.", "Check the path and its permissions.";
    // ---- audit messages
    AuditUnreachable, "audit.unreachable", Retryable, "The audit repository does not take messages.", "Check `audit.repository` and the network; messages wait on disk and are sent by themselves.";
    AuditSpoolFull, "audit.spool_full", Retryable, "There is no room for audit messages.", "Make the audit repository reachable, or raise `audit.spool_limit`.";
    // ---- input files
    InputNotDicom, "input.not_dicom", Poison, "This is not DICOM.", "Give a folder with CT or PET instances, or a NIfTI file.";
    InputEmptyFile, "input.empty_file", Poison, "The file is empty.", "Copy the file again; the transfer may not have finished.";
    InputSpecialFile, "input.special_file", Poison, "The path is a link, a pipe, a socket or a device, not a regular file.", "Put regular files into the folder.";
    InputUnreadableFile, "input.unreadable_file", Poison, "The file can not be opened or read.", "Check the file's permissions and mount.";
    InputTemporary, "input.temporary_or_truncated", Poison, "The name says that the file is still being written.", "Wait until the sender renames it, or delete the remains.";
    InputTooLarge, "input.file_too_large", Poison, "The file is larger than the limit.", "Raise the limit on file sizes if the file is right.";
    InputTooMany, "input.too_many_files", Poison, "The folder holds more files, or deeper folders, than the limit.", "Give a smaller folder, or raise the limit.";
    InputDicomdir, "input.dicomdir", Poison, "The file is a DICOMDIR, an index of a medium.", "Nothing; the images beside it are read by themselves.";
    InputTruncated, "input.truncated", Poison, "The file ends too early.", "Send or copy the file again.";
    InputCorrupt, "input.corrupt", Poison, "The file is not a valid DICOM data set.", "Send the file again from its source.";
    InputMissingUid, "input.missing_uid", Poison, "An identifying UID is missing or empty.", "Send the instance again from its source, or repair the anonymiser.";
    InputInvalidUid, "input.invalid_uid", Poison, "A UID is not valid.", "Send the series again with valid UIDs.";
    InputImplausible, "input.implausible_dimensions", Poison, "Rows, columns, frames or bits are beyond the limits.", "Check the file at its source; raise the limit if it is right.";
    InputPixelDataShort, "input.pixel_data_too_short", Poison, "There is less pixel data than the header says.", "Send the file again from its source.";
    InputChanged, "input.changed", Retryable, "The file changed while it was read.", "Wait until the sender has finished; the series is then read again.";
    InputSopClass, "input.sop_class_not_segmentable", Poison, "The object is not a CT or PET image.", "Nothing; such objects are never segmented.";
    InputSegmentation, "input.segmentation_object", Poison, "The object is a segmentation.", "Nothing; results are never taken as input.";
    InputEmpty, "input.empty_folder", Poison, "The input folder holds no files.", "Check the path; an export may not have finished.";
    InputNifti, "input.bad_nifti", Poison, "The NIfTI file can not be used.", "Check the file with the tool that wrote it.";
    // ---- codecs
    CodecTransferSyntax, "codec.unsupported_transfer_syntax", Poison, "The transfer syntax is not supported.", "Send the series in another transfer syntax.";
    CodecPixelFormat, "codec.unsupported_pixel_format", Poison, "The pixel layout is not supported.", "Send the series as 8, 16 or 32 bit integers.";
    CodecDecode, "codec.decode_error", Poison, "The compressed pixel data can not be decoded.", "Send the file again from its source.";
    CodecCrashed, "codec.crashed", Poison, "The compressed pixel data crashed its decoder.", "Do not trust this file; send the series again from its source.";
    CodecTimeout, "codec.timeout", Poison, "The compressed pixel data was not decoded in time.", "Send the series again, uncompressed if need be; raise the time limit if the machine is slow.";
    CodecWorker, "codec.worker_unavailable", Retryable, "A decode worker could not be started, or was killed from outside.", "Check the machine's memory and process limits.";
    // ---- series
    SeriesLocalizer, "series.localizer", Poison, "The image is a localizer (scout).", "Nothing; localizers are never segmented.";
    SeriesDerived, "series.derived_series", Poison, "The series is derived (a projection, a fusion, a secondary image).", "Send the original series.";
    SeriesNotMonochrome, "series.not_monochrome", Poison, "The images have colour.", "Send the original series.";
    SeriesNoGeometry, "series.no_geometry", Poison, "Image position or orientation is missing.", "Send the original series; without positions no volume can be built.";
    SeriesBadOrientation, "series.bad_orientation", Poison, "The image orientation is not a pair of orthogonal unit vectors.", "Correct the orientation at the source.";
    SeriesBadSpacing, "series.bad_spacing", Poison, "Pixel spacing or slice distance is missing or not a positive number.", "Correct the spacing at the source.";
    SeriesNotVolume, "series.not_a_volume", Poison, "All images lie at one position.", "Nothing; such a series has no third dimension.";
    SeriesNonCollinear, "series.non_collinear", Poison, "The slices do not lie on one straight line.", "Send a series whose slices share one direction.";
    SeriesMissingSlice, "series.missing_slice", Poison, "A slice is missing.", "Send the missing slice, or allow `--irregular resample`.";
    SeriesNonUniform, "series.non_uniform_spacing", Poison, "The distances between slices differ.", "Send a series with even distances, or allow `--irregular resample`.";
    SeriesTooFew, "series.too_few_slices", Poison, "The series has fewer slices than the minimum.", "Send the whole series, or lower `--min-slices`.";
    SeriesTooMany, "series.too_many_slices", Poison, "The series has more planes than the limit of 10,000.", "Send each volume as a series of its own.";
    SeriesDuplicateConflict, "series.conflicting_duplicate", Poison, "One SOP Instance UID stands for two different images.", "Find out which is right and send the series again.";
    SeriesDuplicatePositions, "series.duplicate_positions", Poison, "Several different images lie at one position and nothing tells them apart.", "Send each reconstruction as a series of its own.";
    SeriesMultiTemporal, "series.multi_temporal", Poison, "The time points of the series do not cover the same positions.", "Send each phase as a series of its own.";
    SeriesMixedGeometry, "series.mixed_geometry", Poison, "These images do not lie on the grid of the largest stack of their series.", "Send each reconstruction as a series of its own.";
    SeriesPatientConflict, "series.conflicting_patients", Poison, "One series names two patients.", "Correct the patient data at the source.";
    SeriesNotAttenuationCorrected, "series.not_attenuation_corrected", Poison, "The PET series is not attenuation corrected.", "Send the corrected series.";
    // ---- quantity
    QuantityNotHu, "quantity.not_hu", Poison, "The values are not Hounsfield units.", "Send a reconstruction in HU.";
    QuantityRescaleMissing, "quantity.rescale_missing", Poison, "Rescale Slope or Intercept is missing, so the values may not be Hounsfield units.", "Send the series with its rescale attributes.";
    QuantitySuv, "quantity.suv_not_computable", Poison, "The PET unit can not be converted to SUV.", "Send a reconstruction in Bq/ml or SUV.";
    QuantitySuvWeight, "quantity.suv_no_weight", Poison, "Without the patient's weight there is no SUV.", "Enter the weight at the scanner and send the series again.";
    QuantitySuvSize, "quantity.suv_no_size", Poison, "Without the patient's height this kind of SUV can not be converted.", "Enter the height at the scanner and send the series again.";
    QuantitySuvSex, "quantity.suv_no_sex", Poison, "Without the patient's sex this kind of SUV can not be converted.", "Send a reconstruction in Bq/ml or SUV by body weight.";
    QuantitySuvDose, "quantity.suv_no_dose", Poison, "Without the injected dose there is no SUV.", "Enter the dose at the scanner and send the series again.";
    QuantitySuvDoseUnit, "quantity.suv_dose_not_in_bq", Poison, "The injected dose is too small to be in Bq.", "Correct the dose at the source; or, where such doses are in MBq, set `intake.assume_mbq = true` (`--assume-mbq`) and retry the job.";
    QuantitySuvHalfLife, "quantity.suv_no_half_life", Poison, "The half-life is missing or not the radionuclide's, so there is no SUV.", "Correct the tracer at the scanner and send the series again.";
    QuantitySuvInjection, "quantity.suv_no_injection_time", Poison, "Without the time of injection there is no SUV.", "Enter the time at the scanner and send the series again.";
    QuantitySuvTimes, "quantity.suv_times", Poison, "The times of injection and scan are missing or do not fit together, so there is no SUV.", "Correct the times at the source and send the series again.";
    // ---- volumes
    VolumeNotFinite, "volume.not_finite", Poison, "The image has values that are not finite numbers.", "Check the image at its source; NaN or infinity has no place in it.";
    // ---- scope of a model
    ScopeModality, "scope.modality", Poison, "The model is not made for images of this kind.", "Choose a model made for this modality.";
    ScopeAge, "scope.age", Poison, "The patient's age is outside of the model's scope, or not known.", "Choose a model made for this age.";
    ScopeSpacing, "scope.spacing", Poison, "The slices or pixels are farther apart, or closer, than the model is made for.", "Send a reconstruction within the range named.";
    ScopeCoverage, "scope.coverage", Poison, "The series, or the part of it that shows a body, covers too little for the model.", "Send the whole series, or choose a model made for such a range.";
    ScopeContrast, "scope.contrast", Poison, "The model is made for images with contrast agent, or for those without, and this is not one, or not known to be one.", "Choose a model made for this phase, or let its scope flag what is not known.";
    ScopeRadiopharmaceutical, "scope.radiopharmaceutical", Poison, "The tracer is none that the model is made for, or not coded in the header.", "Choose a model made for this tracer, or let its scope flag what is not known.";
    ScopeDevice, "scope.device", Poison, "The image is from a kind of device that the model is not made for, such as a cone beam CT.", "Choose a model made for this kind of device.";
    ScopeAnatomy, "scope.anatomy", Poison, "The header does not name, or the image does not show, a part of the body that the model is made for.", "Choose a model made for this anatomy, or let its scope flag what is not known.";
    // ---- rules on which series are segmented
    SelectNoRule, "select.no_rule", Poison, "No rule on which series are segmented matches.", "Nothing, or change the `[[select]]` rules; the message says what each one misses.";
    SelectIgnored, "select.ignored", Poison, "A rule says to leave this series alone.", "Nothing, or change the rule.";
    SelectNotBest, "select.not_best", Poison, "Another series of the study is better by the same rule.", "Nothing, or change the rule's `prefer`.";
    SelectNoPartner, "select.no_partner", Poison, "The model takes several series (PET and CT), and one of them has not come.", "Send the other series of the study with the same frame of reference.";
    // ---- models
    ModelMissing, "model.missing", Poison, "The model folder or a file in it is missing.", "Import the model again with `stunetd model import`.";
    ModelManifest, "model.bad_manifest", Poison, "The model's manifest can not be used.", "Import the model again with `stunetd model import`.";
    ModelDigest, "model.digest_mismatch", Poison, "The weights are not the ones that the manifest names.", "Restore the model folder from its source; never edit it by hand.";
    ModelMismatch, "model.shape_mismatch", Poison, "The weights do not fit the architecture.", "Import the model again from a complete checkpoint.";
    ModelExists, "model.already_exists", Poison, "The output folder exists already.", "Choose another folder; a generation is never overwritten.";
    ModelLabels, "model.bad_labels", Poison, "The label list can not be used.", "Correct the list named in the message.";
    ModelChannels, "model.channel_mismatch", Poison, "The image has another number of channels than the model.", "Choose a model made for this kind of input.";
    ModelNotFinite, "model.not_finite", Poison, "The network answered with numbers that are not finite.", "Try `--precision f32`; if it stays, the weights are broken.";
    ModelInput, "model.bad_input", Poison, "The tensor given to the network does not fit it.", "Give a tensor [N, C, X, Y, Z] whose axes are divisible by the strides in the manifest.";
    ModelUnknownGeneration, "model.unknown_generation", Poison, "There is no such generation of the model.", "See `stunetd model list --config`; `stunetd model rollback` has the model before serve again.";
    ModelCanary, "model.canary_failed", Poison, "The generation does not do on this machine what it did when it was tried out.", "Nothing serves with it; see the message, and check the disk and the device.";
    ModelNotPromotable, "model.not_promotable", Poison, "This generation may not serve in that place.", "See the message: what is not approved does not take the place of what is.";
    // ---- checkpoints
    CheckpointNotOne, "checkpoint.not_a_checkpoint", Poison, "The file is not a PyTorch checkpoint.", "Check the download; the file should start with the letters PK.";
    CheckpointHtml, "checkpoint.html_page", Poison, "The file is a web page, not weights.", "Download the weights again; a login or error page was saved instead.";
    CheckpointTruncated, "checkpoint.truncated", Poison, "The checkpoint ends too early.", "Download or copy the file again and compare its size.";
    CheckpointForbidden, "checkpoint.forbidden_global", Poison, "The checkpoint asks for code that is not on the allow-list.", "Do not trust this file; get it from its original source.";
    CheckpointMalformed, "checkpoint.malformed", Poison, "The checkpoint's structure is not understood.", "Get the file from its original source.";
    CheckpointLimit, "checkpoint.limit_exceeded", Poison, "The checkpoint exceeds a safety limit.", "Get the file from its original source.";
    CheckpointCorrupt, "checkpoint.corrupt", Poison, "Bytes of the checkpoint are not those that were written.", "Download or copy the file again.";
    CheckpointNoWeights, "checkpoint.no_weights", Poison, "The checkpoint holds no network weights.", "Give the file that nnU-Net saved (.model, or checkpoint_final.pth in its folder).";
    CheckpointNotFinite, "checkpoint.not_finite", Poison, "A weight is infinite or not a number.", "The training diverged; choose an earlier checkpoint.";
    CheckpointNotStunet, "checkpoint.not_stunet", Poison, "The weights are not those of a STU-Net.", "Give a checkpoint of STU-Net; other network families are not supported.";
    CheckpointPlans, "checkpoint.bad_plans", Poison, "The plans beside the weights are missing or can not be used.", "Put plans (.model.pkl, or plans.json and dataset.json) beside the weights.";
    CheckpointUnsupported, "checkpoint.unsupported", Poison, "The checkpoint needs something that is not supported.", "See the message for which feature; only 3-D full-resolution STU-Net is supported.";
    // ---- what was received
    SpoolInstanceMissing, "spool.instance_missing", Poison, "An instance that was acknowledged is not in the spool.", "Find out who removed it, and have the series sent again.";
    // ---- memory, disk, device
    MemoryTooLarge, "memory.volume_too_large", Poison, "The volume needs more memory than is configured.", "Raise `host_memory`, or use a smaller series.";
    DeviceOutOfMemory, "device.out_of_memory", Retryable, "The device ran out of memory.", "Lower `device_memory` use, or choose a smaller model.";
    DeviceUnavailable, "device.unavailable", Fatal, "The device asked for can not be used.", "Run `stunetd doctor --cuda`, or choose `--device cpu`.";
    DiskFull, "disk.full", Retryable, "The disk is full.", "Free space; work goes on by itself.";
    DiskUnwritable, "disk.unwritable", Retryable, "A file or folder can not be written.", "Check the folder's permissions and mount.";
    DiskUnreadable, "disk.unreadable", Retryable, "A file can not be read.", "Check the file's permissions and mount.";
    // ---- the daemon
    DaemonNotRunning, "daemon.not_running", Retryable, "No daemon works with this state folder.", "Start it (`systemctl start stunetd`), or name its configuration with `--config`.";
    // ---- the ledger and its jobs
    LedgerInUse, "ledger.in_use", Fatal, "Another process works with the ledger.", "End the other daemon, or give this one a `state` folder of its own.";
    LedgerCorrupt, "ledger.corrupt", Fatal, "The ledger's file is damaged.", "Restore it from a backup, or run `stunetd doctor --repair`: it sets the file aside and begins anew from the folders.";
    LedgerMissing, "ledger.missing", Fatal, "The ledger's file was here before and is gone.", "Restore it or its mount, or run `stunetd doctor --repair` to begin anew from the folders.";
    LedgerTooNew, "ledger.too_new", Fatal, "The ledger was written by a newer version.", "Start that version again; a ledger can not go back.";
    LedgerRestored, "ledger.restored", Retryable, "The ledger is older than the one that was here last: a backup was restored.", "Nothing; results are compared with the folders, and deliveries are verified before they are sent again.";
    LedgerStaleToken, "ledger.stale_token", Retryable, "The lease on this work was lost: it ran out, or the work was cancelled.", "Nothing; what another worker does counts.";
    LedgerInvalid, "ledger.invalid_text", Poison, "A text for the ledger is empty or too long.", "Report it with the log lines around it.";
    LedgerUnknown, "ledger.unknown", Poison, "The ledger knows no such case, run, patient or generation.", "See `stunetd model list`, or the list of cases or runs, for what there is.";
    LedgerNotAllowed, "ledger.not_allowed", Poison, "The state of this case, run, patient or generation does not allow this.", "See the message.";
    JobUnknown, "job.unknown", Poison, "There is no such job.", "See `stunetd jobs list`.";
    JobWrongState, "job.wrong_state", Poison, "The job's state does not allow this.", "See `stunetd jobs show` for its state.";
    JobCrashed, "job.crashed_the_daemon", Poison, "The daemon died each time while it worked on this study alone.", "Send the study and the log to the makers; `stunetd jobs retry` tries once more.";
    // ---- results and their delivery
    ResultsChanged, "results.changed", Retryable, "A published result is gone or not what was written.", "Look into the disk; `stunetd doctor --repair`, or the next start, has it made again.";
    ResultsDamaged, "results.damaged", Poison, "A published result is not what it should be.", "Keep the folder for inspection, remove it from the output folder and let the study be done again.";
    ResultsTooLarge, "results.object_too_large", Poison, "The result does not fit into one DICOM object.", "Ask for the format `labelmap`, which is smaller.";
    DeliveryConflict, "delivery.conflict", Poison, "The output folder holds another result for this volume.", "Choose another output folder, or remove the old result.";
    DeliveryUnreachable, "delivery.unreachable", Retryable, "The destination can not be reached.", "Nothing yet: results wait, and go when it is back. If it lasts, check its address, its AE titles and the network.";
    DeliveryInterrupted, "delivery.interrupted", Retryable, "The connection to the destination was lost.", "Nothing: the destination is asked what it has before anything is sent again.";
    DeliveryBusy, "delivery.busy", Retryable, "The destination can not take the result now.", "Nothing yet: it is tried again. If it lasts, look at the destination's disk and log.";
    DeliveryRefused, "delivery.refused", Poison, "The destination refuses the result.", "Mend the destination or its entry in the configuration, then run `stunetd jobs retry`.";
    DeliveryUnverified, "delivery.unverified", Poison, "The result may be at the destination, and nobody can tell.", "Look for it there; `stunetd jobs retry` sends it once more, `stunetd jobs cancel` leaves it.";
    DeliveryNothing, "delivery.nothing_to_send", Poison, "The result has no file in a format of the destination.", "Compare `formats` of the destination with `output.formats`.";
    DeliveryTooLarge, "delivery.too_large", Poison, "The result is larger than the destination takes.", "Raise its `max_object_mb`, or have it accept Label Map Segmentation Storage, then run `stunetd jobs retry`.";
    DeliveryCoerced, "delivery.coerced", Retryable, "The destination took the result with a warning.", "Nothing; compare the object there with ours if the message names attributes.";
    DeliveryUncommitted, "delivery.uncommitted", Retryable, "The destination took the result and has not committed itself to keeping it.", "Nothing: it is asked what it has when its answer stays away. If that happens always, see storage commitment in docs/delivery.md.";
    // ---- curated cases
    CasesUnknown, "cases.unknown", Poison, "There is no such case.", "See `stunetd cases list`.";
    CasesNoLabels, "cases.no_labels", Poison, "The folder has no label object that can be read.", "Put a segmentation object, a structure set or a NIfTI label file into it.";
    CasesNoImage, "cases.no_image", Poison, "The image that the labels belong to was not found.", "Put its series beside the labels, or have it sent to the daemon.";
    CasesGeometry, "cases.geometry", Poison, "The labels do not lie on the grid of their image.", "Export them on the image's own grid, or name the image that they were drawn on.";
    CasesNoKnownLabel, "cases.no_known_label", Poison, "No structure of the file is a label of the model.", "Name or code the structures as the model does, or say which is which.";
    CasesOverlap, "cases.overlap", Poison, "Two labels claim the same voxels.", "Correct the labels: each voxel belongs to one structure.";
    CasesImplausible, "cases.implausible_volume", Poison, "A label's volume is not one that such an organ has.", "Correct the label, or confirm that it is right.";
    CasesDuplicate, "cases.duplicate", Poison, "The image is a case already.", "Nothing; or withdraw the other case first.";
    CasesSignOff, "cases.bad_signoff", Poison, "The reader's record is missing something, or is not about these labels.", "Have the labels looked at and signed for as they are.";
    CasesUnchanged, "cases.unchanged", Poison, "The labels are the model's own: nobody changed them.", "Nothing; such labels are never learned from.";
    CasesLeak, "cases.leak", Fatal, "One patient is on both sides of the split.", "Find out which cases are of one person, and withdraw those of one side.";
    // ---- training
    TrainingCase, "training.bad_case", Poison, "A prepared case is damaged or does not fit.", "Remove the file and have the case prepared again.";
    TrainingCheckpoint, "training.bad_checkpoint", Poison, "The checkpoint of a training run does not fit it.", "Start the run anew in an empty folder; nothing that serves has changed.";
    TrainingSettings, "training.bad_settings", Poison, "The settings of a training run do not fit each other or the weights.", "Correct what the message names.";
    TrainingNotFinite, "training.not_finite", Poison, "A loss, gradient or weight became infinite or not a number.", "Lower the learning rate, or leave out the case that the message names.";
    TrainingTooFewCases, "training.too_few_cases", Poison, "There are too few cases to learn from, to measure on or to rehearse.", "`stunetd train status` shows the counts for each class; have more cases signed off.";
    TrainingPlanRefused, "training.plan_refused", Poison, "The change plan can not be used for this.", "Correct what the message names; the plan belongs to people, not to the daemon's user.";
    TrainingGatesRefused, "training.gates_refused", Poison, "The candidate was refused by its gates, or has not passed them.", "Read report.html in the run's folder; what serves has not changed.";
    TrainingWorkerFailed, "training.worker_failed", Poison, "A process that teaches or compares networks failed again and again.", "See its lines in the log; what serves has not changed.";
    TrainingReportChanged, "training.report_changed", Poison, "A run's report is not what the daemon signed.", "Have the candidate compared again; find out who changed the file.";
    TrainingUnknownRun, "training.unknown_run", Poison, "There is no training run of this number.", "`stunetd train history` lists the runs.";
    TrainingNotNow, "training.not_now", Poison, "The training run is not in a state in which this can be done.", "`stunetd train status` tells where it is.";
    // ---- ourselves
    InternalBug, "internal.bug", Poison, "A step that can not fail has failed.", "Report it with the log lines around it.";
    InternalTorch, "internal.torch", Poison, "libtorch reported an error.", "See the message; run `stunetd doctor`.";
    InternalShutdown, "internal.shutdown", Retryable, "The daemon is shutting down.", "Nothing; the work is taken up again at the next start.";
}
